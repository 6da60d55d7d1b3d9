import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { z } from 'zod';
import * as report from './report.mjs';

const prompt = report.QUESTION;
const city = z.object({ city: z.string() });
const weather = tool({ description: 'Tell the weather in a city.', inputSchema: city, execute: report.weather });
const isOpenAI = process.argv[2] === 'openai';
const tolerant = { name: 'fastgpt', includeUsage: true, supportsStructuredOutputs: true };
const model = connect(report.KEY);
const tokens = (usage) => [usage.inputTokens, usage.outputTokens];

function provider(apiKey) {
  const options = { baseURL: report.BASE_URL, apiKey };
  return isOpenAI ? createOpenAI(options) : createOpenAICompatible({ ...options, ...tolerant });
}

function connect(apiKey) {
  return isOpenAI ? provider(apiKey).chat(report.MODEL) : provider(apiKey).chatModel(report.MODEL);
}

async function ask(key, question) {
  // It tries again whatever is a 429, unlike OpenAI's clients also a spent quota, some seconds later.
  const maxRetries = key === report.BUSY_KEY ? 2 : 0;
  return (await generateText({ model: connect(key), prompt: question, maxRetries })).text;
}

async function plain(chosen = model) {
  const { text, usage } = await generateText({ model: chosen, prompt });
  return { text, usage: tokens(usage) };
}

async function streamed(question, chosen = model) {
  const failures = [];
  const result = streamText({ model: chosen, prompt: question, onError: ({ error }) => failures.push(error) });
  const pieces = await Array.fromAsync(result.textStream);
  if (failures.length) throw failures[0];
  return { pieces, usage: tokens(await result.usage) };
}

async function tools(chosen = model) {
  return { text: (await generateText({ model: chosen, prompt, tools: { weather }, stopWhen: isStepCount(3) })).text };
}

async function tools_streamed() {
  const [call] = await streamText({ model, prompt, tools: { weather } }).toolCalls;
  return { name: call.toolName, arguments: call.input };
}

async function structured() {
  const schema = city.extend({ rain: z.boolean() });
  return (await generateText({ model, prompt, output: Output.object({ schema }) })).output;
}

async function embedded() {
  const embedder = provider(report.GLOBAL_KEY).embeddingModel(report.EMBEDDING_MODEL);
  const { embeddings } = await embedMany({ model: embedder, values: ['one', 'two'] });
  return { dimensions: embeddings.map((vector) => vector.length) };
}

/** What the provider of OpenAI's models calls by default. */
async function responses() {
  const model = provider(report.KEY)(report.MODEL);
  return { ...(await plain(model)), ...(await streamed(prompt, model)), told: (await tools(model)).text };
}

const steps = [plain, tools, tools_streamed, structured, embedded];
await report.run(ask, streamed, ...steps, ...(isOpenAI ? [responses] : []));
