// A decoder with its cache, the embeddings of a prompt with a picture in it, and pixels as the model wants them.

export class Decoder {
  // The cache is everything named past_key_values.…; the steering's state along the reply travels in it.
  constructor(ort, session) {
    this.ort = ort;
    this.session = session;
    this.seen = 0;
    this.cache = {};
    for (const { name, shape } of session.inputMetadata) {
      if (!name.startsWith('past_key_values.')) continue;
      this.cache[name] = new ort.Tensor('float32', new Float32Array(0), [1, shape[1], 0, shape[3]]);
    }
  }

  // The most likely token after these embeddings.
  async next(embeddings) {
    const { ort } = this;
    const size = embeddings.dims[1];
    const positions = BigInt64Array.from({ length: size }, (_, i) => BigInt(this.seen + i));
    this.seen += size;
    const outputs = await this.session.run({
      inputs_embeds: embeddings,
      attention_mask: new ort.Tensor('int64', new BigInt64Array(this.seen).fill(1n), [1, this.seen]),
      position_ids: new ort.Tensor('int64', positions, [1, size]),
      ...this.cache,
    });
    for (const name of Object.keys(this.cache)) this.cache[name] = outputs[name.replace('past_key_values', 'present')];
    const vocabulary = outputs.logits.dims[2];
    const last = outputs.logits.data.subarray(outputs.logits.data.length - vocabulary);
    return last.reduce((best, value, token) => (value > last[best] ? token : best), 0);
  }
}

// Embeddings (1, s, d) of token ids; image features take the places of the image token.
export async function embed(ort, session, ids, features, imageToken) {
  const tensor = new ort.Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]);
  const { inputs_embeds: embeddings } = await session.run({ input_ids: tensor });
  if (features === undefined) return embeddings;
  const width = embeddings.dims[2];
  const data = embeddings.data.slice();
  ids.flatMap((id, place) => (id === imageToken ? [place] : [])).forEach((place, k) => {
    data.set(features.data.subarray(k * width, (k + 1) * width), place * width);
  });
  return new ort.Tensor('float32', data, embeddings.dims);
}

// Pixels (1, 3, side, side) of a square picture that has this size already.
export function pixelsOf(ort, image, { side, mean, std }) {
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, side, side).data;
  const pixels = new Float32Array(3 * side * side);
  for (let i = 0; i < side * side; i++) {
    for (let c = 0; c < 3; c++) pixels[c * side * side + i] = (rgba[4 * i + c] / 255 - mean[c]) / std[c];
  }
  return new ort.Tensor('float32', pixels, [1, 3, side, side]);
}
