// Which switches onnxruntime-node obeys: the last logit of a probe, by graph and by what is fed.
//   node toggle.mjs GRAPH.onnx FEEDS.json [STRENGTH]   prints one number, or the error's first line
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(path.join(process.cwd(), 'here.js')));
const ort = require('onnxruntime-node');
const [graph, feedFile, strength] = process.argv.slice(2);
const feeds = {};
for (const [name, { type, dims, data }] of Object.entries(JSON.parse(fs.readFileSync(feedFile, 'utf8')))) {
  const values = type === 'int64' ? BigInt64Array.from(data, BigInt) : Float32Array.from(data);
  feeds[name] = new ort.Tensor(type, values, dims);
}
if (strength !== undefined) feeds.steering_strength = new ort.Tensor('float32', [Number(strength)], [1]);
try {
  const session = await ort.InferenceSession.create(graph);
  const { logits } = await session.run(feeds);
  console.log(logits.data.at(-1));
} catch (error) {
  console.log(String(error.message).split('\n')[0]);
}
