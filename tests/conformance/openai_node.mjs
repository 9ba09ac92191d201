// What a program does with openai-node, and with the Vercel AI SDK (whose "openai" provider asks
// /v1/responses, and whose "openai-compatible" one asks /v1/chat/completions).
// Run with its packages' folder as NODE_FOLDER; tells one JSON line a check.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_FOLDER + "/");
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: OpenAI } = await load("openai");
const { generateText, streamText, embedMany, tool, jsonSchema } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const env = process.env;
const where = { baseURL: env.SUBJECT_BASE, apiKey: env.SUBJECT_KEY };
const model = env.SUBJECT_MODEL;
const client = new OpenAI({ ...where, maxRetries: 0, timeout: 300_000 });
const messages = [{ role: "user", content: "Say hello." }];
const schema = {
  type: "object",
  properties: { a: { type: "string", enum: ["x", "y"] } },
  required: ["a"],
  additionalProperties: false,
};
class Skipped extends Error {}
const must = (held, said) => {
  if (!held) throw new Error(said);
};
const reasoningModel = () => {
  if (!env.SUBJECT_REASONING_MODEL) throw new Skipped("the subject serves no model that reasons");
  return env.SUBJECT_REASONING_MODEL;
};
const failsWith = async (work, status, code) => {
  try {
    await work();
  } catch (error) {
    must(error.status === status, `status ${error.status}`);
    must(error.code === code, `code ${error.code}`);
    return;
  }
  throw new Error("it was answered");
};
const compatible = createOpenAICompatible({ name: "subject", ...where });
const openai = createOpenAI(where);
const few = { maxOutputTokens: 16, maxRetries: 0 };

const checks = {
  async node_models() {
    const found = await client.models.list();
    must(found.data.some((one) => one.id === model), "the model is not listed");
  },
  async node_chat() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 8 });
    must(answer.choices[0].message.content, "no text");
  },
  async node_stream() {
    const more = { stream: true, stream_options: { include_usage: true }, max_tokens: 8 };
    let text = "", usage = null;
    for await (const chunk of await client.chat.completions.create({ model, messages, ...more })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    must(text && usage.completion_tokens > 0, "no text, or no usage");
  },
  async node_tool() {
    const tools = [{ type: "function", function: { name: "pick", parameters: schema } }];
    const more = { tools, tool_choice: "required", max_tokens: 100 };
    const answer = await client.chat.completions.create({ model, messages, ...more });
    const [call] = answer.choices[0].message.tool_calls;
    must(["x", "y"].includes(JSON.parse(call.function.arguments).a), "not of the schema");
  },
  async node_responses_stream() {
    const more = { input: "Say hello.", stream: true, max_output_tokens: 16 };
    const seen = [];
    for await (const event of await client.responses.create({ model, ...more })) seen.push(event.type);
    must(seen[0] === "response.created", `begins with ${seen[0]}`);
    must(/completed|incomplete/.test(seen.at(-1)), `ends with ${seen.at(-1)}`);
  },
  async node_unknown_model() {
    const ask = () => client.chat.completions.create({ model: "no-such-model", messages });
    await failsWith(ask, 404, "model_not_found");
  },
  async node_wrong_key() {
    const other = new OpenAI({ ...where, apiKey: "wrong", maxRetries: 0 });
    const ask = () => other.chat.completions.create({ model, messages, max_tokens: 1 });
    await failsWith(ask, 401, "invalid_api_key");
  },
  async ai_generate_chat() {
    const { text, usage } = await generateText({ model: compatible(model), prompt: "Hi", ...few });
    must(text && usage.outputTokens > 0, "no text, or no usage");
  },
  async ai_stream_chat() {
    const { textStream } = streamText({ model: compatible(model), prompt: "Hi", ...few });
    let text = "";
    for await (const piece of textStream) text += piece;
    must(text, "no text");
  },
  async ai_tool_chat() {
    const tools = { pick: tool({ description: "Pick.", inputSchema: jsonSchema(schema) }) };
    const more = { tools, toolChoice: "required", maxRetries: 0, maxOutputTokens: 100 };
    const { toolCalls } = await generateText({ model: compatible(model), prompt: "Pick.", ...more });
    must(["x", "y"].includes(toolCalls[0]?.input.a), "no call of the schema");
  },
  async ai_generate_responses() {
    const { text } = await generateText({ model: openai(model), prompt: "Hi", ...few });
    must(text, "no text");
  },
  async ai_stream_responses() {
    const { textStream } = streamText({ model: openai(model), prompt: "Hi", ...few });
    let text = "";
    for await (const piece of textStream) text += piece;
    must(text, "no text");
  },
  async ai_reasoning_chat() {
    const options = { providerOptions: { subject: { reasoningEffort: "low" } }, maxRetries: 0 };
    const asked = { model: compatible(reasoningModel()), prompt: "Hi", ...options };
    const whole = await generateText(asked);
    must(whole.text && whole.reasoningText, "no text, or no reasoning");
    must(whole.usage.reasoningTokens > 0, "no tokens of reasoning");
    const streamed = streamText(asked);
    must((await streamed.reasoningText) === whole.reasoningText, "another reasoning in a stream");
    must((await streamed.text) === whole.text, "another text in a stream");
  },
  async ai_reasoning_responses() {
    const options = { forceReasoning: true, reasoningEffort: "low", reasoningSummary: "auto" };
    const asked = { model: openai(reasoningModel()), prompt: "Hi", maxRetries: 0 };
    const whole = await generateText({ ...asked, providerOptions: { openai: options } });
    must(whole.text && whole.reasoningText, "no text, or no reasoning");
    const streamed = streamText({ ...asked, providerOptions: { openai: options } });
    must((await streamed.reasoningText) === whole.reasoningText, "another reasoning in a stream");
  },
  async ai_embed() {
    if (!env.SUBJECT_EMBEDDING_MODEL) throw new Skipped("the subject serves no model of embeddings");
    const base = { ...where, baseURL: env.SUBJECT_EMBEDDINGS_BASE };
    const made = createOpenAICompatible({ name: "subject", ...base });
    const found = await embedMany({
      model: made.textEmbeddingModel(env.SUBJECT_EMBEDDING_MODEL),
      values: ["a cat", "tax law"],
      maxRetries: 0,
    });
    must(found.embeddings.length === 2 && found.embeddings[0].length > 1, "no vectors");
  },
};

for (const [test, check] of Object.entries(checks)) {
  let status = "passed", why = "";
  try {
    await check();
  } catch (error) {
    status = error instanceof Skipped ? "skipped" : "failed";
    why = status === "skipped" ? error.message : `${error.name}: ${error.message}`.slice(0, 300);
  }
  console.log(JSON.stringify({ test, status, why }));
}
process.exit(0);
