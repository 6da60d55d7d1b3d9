import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import * as report from './report.mjs';

const model = report.MODEL;
const messages = [{ role: 'user', content: report.QUESTION }];
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const toolset = [{ type: 'function', function: { name: 'weather', parameters } }];
const connect = (apiKey) => new OpenAI({ baseURL: report.BASE_URL, apiKey });
const client = connect(report.KEY);

async function ask(key, question) {
  const answer = await connect(key).chat.completions.create({ model, messages: [{ role: 'user', content: question }] });
  return answer.choices[0].message.content;
}

async function plain() {
  const { choices, usage } = await client.chat.completions.create({ model, messages });
  return { text: choices[0].message.content, usage: [usage.prompt_tokens, usage.completion_tokens] };
}

async function streamed(question) {
  const messages = [{ role: 'user', content: question }];
  const options = { stream: true, stream_options: { include_usage: true } };
  const pieces = [];
  let usage;
  for await (const chunk of await client.chat.completions.create({ model, messages, ...options })) {
    pieces.push(...chunk.choices.map((choice) => choice.delta.content).filter(Boolean));
    usage = chunk.usage ?? usage;
  }
  return { pieces, usage: [usage.prompt_tokens, usage.completion_tokens] };
}

async function tools() {
  const first = await client.chat.completions.create({ model, messages, tools: toolset });
  const { message } = first.choices[0];
  const results = message.tool_calls.map((call) => ({
    role: 'tool',
    tool_call_id: call.id,
    content: report.weather(JSON.parse(call.function.arguments)),
  }));
  const history = [...messages, message, ...results];
  const answer = await client.chat.completions.create({ model, messages: history, tools: toolset });
  return { text: answer.choices[0].message.content };
}

async function tools_streamed() {
  const runner = client.chat.completions.stream({ model, messages, tools: toolset });
  const [call] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
  return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
}

async function structured() {
  const Weather = z.object({ city: z.string(), rain: z.boolean() });
  const answer = await client.chat.completions.parse({
    model,
    messages,
    response_format: zodResponseFormat(Weather, 'weather'),
  });
  return answer.choices[0].message.parsed;
}

async function embedded() {
  const request = { model: report.EMBEDDING_MODEL, input: ['one', 'two'] };
  const { data } = await connect(report.GLOBAL_KEY).embeddings.create(request);
  return { dimensions: data.map(({ embedding }) => embedding.length) };
}

async function responses() {
  const answer = await client.responses.create({ model, input: report.QUESTION });
  const pieces = [];
  for await (const event of await client.responses.create({ model, input: report.QUESTION, stream: true })) {
    if (event.type === 'response.output_text.delta') pieces.push(event.delta);
  }
  const { input_tokens: input, output_tokens: output } = answer.usage;
  return { text: answer.output_text, usage: [input, output], pieces, told: await toldByResponses() };
}

async function toldByResponses() {
  const toolset = [{ type: 'function', name: 'weather', parameters }];
  const first = await client.responses.create({ model, input: messages, tools: toolset });
  const results = first.output
    .filter((item) => item.type === 'function_call')
    .map((item) => ({
      type: 'function_call_output',
      call_id: item.call_id,
      output: report.weather(JSON.parse(item.arguments)),
    }));
  const input = [...messages, ...first.output, ...results];
  return (await client.responses.create({ model, input, tools: toolset })).output_text;
}

await report.run(ask, streamed, plain, tools, tools_streamed, structured, embedded, responses);
