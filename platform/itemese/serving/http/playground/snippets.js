// The request of the page, to be run elsewhere.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Return a shell command. */
export function curl(url, body, token) {
  const lines = [`curl -s ${quoted(`${url}/v1/recommend`)}`, "-H 'content-type: application/json'"];
  if (token) lines.push('-H "authorization: Bearer $ITEMESE_TOKEN"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

function literal(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([k, v]) => `${literal(k)}: ${literal(v)}`).join(", ")}}`;
  }
  return JSON.stringify(value); // text and numbers of JSON are literals of Python
}

/** Return a Python program. */
export function python(url, body, token) {
  const { history, ...options } = body;
  const given = Object.entries(options).map(([name, value]) => `, ${name}=${literal(value)}`).join("");
  const lines = token ? ["import os", ""] : [];
  const secret = token ? ', token=os.environ["ITEMESE_TOKEN"]' : "";
  lines.push(
    "from itemese import Client",
    "",
    `client = Client(${literal(url)}${secret})`,
    `for item in client.recommend(${literal(history)}${given}):`,
    "    print(item.score, item.item_id, item.title)",
  );
  return lines.join("\n");
}
