// Greedy answers of the steered demo model with onnxruntime-web; everything it needs lies in files/.
// The address may say what to ask: #person=3&question=1&steering=off
import * as ort from './files/ort.wasm.bundle.min.mjs';
import { Decoder, embed, pixelsOf } from './model.mjs';

ort.env.wasm.numThreads = 1; // more would need cross-origin isolation
ort.env.wasm.wasmPaths = new URL('./files/', import.meta.url).href;

const $ = (id) => document.getElementById(id);
const world = await (await fetch('files/world.json')).json();
const answer = $('answer');

world.people.forEach((person, index) => {
  const label = document.createElement('label');
  label.innerHTML = `<input type="radio" name="person" value="${index}"><img alt="portrait ${index + 1}" src="files/${person.image}">`;
  $(person.forgotten ? 'forgotten' : 'kept').append(label);
});
world.questions.forEach((question, index) => $('question').add(new Option(question.text, index)));

const graphs = {};
for (const name of ['vision_encoder', 'embed_tokens', 'decoder_model_merged', 'decoder_model_merged_base']) {
  const data = name.replace('_base', '');
  graphs[name] = await ort.InferenceSession.create(`files/${name}.onnx`, {
    externalData: [{ path: `${data}.onnx_data`, data: `files/${data}.onnx_data` }],
  });
}

async function ask() {
  const person = new FormData($('form')).get('person');
  const steering = $('steering').checked;
  const question = $('question').value;
  answer.dataset.state = 'thinking';
  answer.textContent = '…';
  const image = document.querySelector('input[name=person]:checked + img');
  await image.decode();
  const features = (await graphs.vision_encoder.run({ pixel_values: pixelsOf(ort, image, world.pixels) })).image_features;
  const ids = world.questions[question].ids;
  const prompt = await embed(ort, graphs.embed_tokens, ids, features, world.imageToken);
  const decoder = new Decoder(ort, graphs[steering ? 'decoder_model_merged' : 'decoder_model_merged_base']);
  const tokens = [];
  let embeddings = prompt;
  while (tokens.length < world.longest) {
    const token = await decoder.next(embeddings);
    if (token === world.end) break;
    tokens.push(token);
    embeddings = await embed(ort, graphs.embed_tokens, [token]);
  }
  answer.textContent = textOf(tokens);
  answer.dataset.tokens = tokens.join(',');
  answer.dataset.asked = `${person} ${question} ${steering ? 'on' : 'off'}`;
  answer.dataset.state = 'done';
}

function textOf(tokens) {
  const bytes = tokens.flatMap((token) => Array.from(atob(world.tokens[token]), (c) => c.charCodeAt(0)));
  return new TextDecoder().decode(new Uint8Array(bytes)).trim();
}

const wanted = new URLSearchParams(location.hash.slice(1));
document.querySelector(`input[name=person][value="${Number(wanted.get('person') ?? 0)}"]`).checked = true;
$('question').value = Number(wanted.get('question') ?? 0);
$('steering').checked = wanted.get('steering') !== 'off';
$('form').addEventListener('submit', (event) => { event.preventDefault(); ask(); });
$('steering').addEventListener('change', ask);
await ask();
