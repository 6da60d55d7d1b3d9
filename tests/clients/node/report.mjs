// Runs a client's steps one after the other, and prints as JSON what it saw. It imports no client.

const { env } = process;

export const BASE_URL = env.CLIENT_BASE_URL;
export const KEY = env.CLIENT_KEY;
// It opens what the team owns, and talks to no app.
export const GLOBAL_KEY = env.CLIENT_GLOBAL_KEY;
export const BUSY_KEY = env.CLIENT_BUSY_KEY;
export const MODEL = 'any';
export const EMBEDDING_MODEL = 'wordllama-256';
export const QUESTION = 'How is the weather in Ulm?';
export const weather = ({ city }) => `Rain in ${city}.`;

/**
 * `ask` asks once, with a key and a question, and returns the text; `streamed` takes the question of a stream.
 * The other steps are named by their functions.
 */
export async function run(ask, streamed, ...steps) {
  const seen = {};
  for (const step of steps) seen[step.name] = await step();
  for (const [name, key] of Object.entries(JSON.parse(env.CLIENT_REFUSED_KEYS))) {
    seen[name] = await refusal(() => ask(key, QUESTION));
  }
  seen.too_long = await refusal(() => ask(KEY, 'too long'));
  seen.streamed = await streamed(QUESTION);
  seen.broken_off = await refusal(() => streamed('break off'));
  const began = performance.now();
  const text = await ask(BUSY_KEY, QUESTION);
  seen.busy = { text, seconds: (performance.now() - began) / 1000 };
  console.log(JSON.stringify(seen));
}

async function refusal(step) {
  try {
    return { no_error: await step() };
  } catch (error) {
    // The AI SDK wraps what it tried several times.
    const last = error.lastError ?? error;
    const name = error.name === 'Error' ? error.constructor.name : error.name;
    return { error: name, status: last.status ?? last.statusCode, message: last.message };
  }
}
