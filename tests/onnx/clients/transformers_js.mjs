// Answers questions with a directory of graphs in transformers.js, offline.
//   node transformers_js.mjs DIRECTORY QUESTIONS.json ANSWERS.json [base]
// A question is {"prompt": …, "image": PATH or null}; an answer is the list of new tokens.
// With "base" the decoder is the twin graph, …_base.onnx, over the same weights file.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The package is looked for where the command runs, not beside this file.
const require = createRequire(pathToFileURL(path.join(process.cwd(), 'here.js')));
const { AutoModelForImageTextToText, AutoProcessor, RawImage, env } = await import(
  pathToFileURL(require.resolve('@huggingface/transformers')).href
);

const [directory, questionFile, answerFile, which] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(directory));
const name = path.basename(directory);

const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageTextToText.from_pretrained(name, { device: 'cpu' });
if (which === 'base') {
  const ort = require('onnxruntime-node');
  const twin = path.join(directory, 'onnx', 'decoder_model_merged_base.onnx');
  const session = await ort.InferenceSession.create(twin);
  session.config = model.sessions.decoder_model_merged.config;
  model.sessions.decoder_model_merged = session;
  const text = model.config.text_config;
  const extra = model.config.normalized_config.num_layers - session.inputNames.filter((n) => n.endsWith('.key')).length;
  model.config.normalized_config.num_layers -= extra; // the twin has no layer for the reply state
  text.num_hidden_layers -= extra;
}

const answers = [];
for (const { prompt, image } of JSON.parse(fs.readFileSync(questionFile, 'utf8'))) {
  const content = [{ type: 'text', text: prompt }];
  if (image !== null) content.unshift({ type: 'image' });
  const text = processor.apply_chat_template([{ role: 'user', content }], { add_generation_prompt: true });
  const picture = image === null ? null : await RawImage.read(image);
  const given = model.config.model_type === 'llava' ? [picture, text] : [text, picture]; // each family has its order
  const inputs = image === null ? processor.tokenizer(text) : await processor(...given);
  const output = await model.generate({ ...inputs, max_new_tokens: 24, do_sample: false });
  const prompted = inputs.input_ids.dims.at(-1);
  answers.push(output.tolist()[0].slice(prompted).map(Number));
}
fs.writeFileSync(answerFile, JSON.stringify(answers));
