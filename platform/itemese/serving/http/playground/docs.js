"use strict";

// Reads openapi.json, which the service makes from its types, and shows it as text.
function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function link(reference) {
  const name = reference.split("/").pop();
  const made = element("a", name);
  made.href = `#${name}`;
  return made;
}

// What a schema takes, as nodes: "integer", "list of ItemId", "Item or null".
function kind(schema = {}) {
  if (schema.$ref) return [link(schema.$ref)];
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.flatMap((one, place) => [...(place ? [" or "] : []), ...kind(one)]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  if (schema.additionalProperties) return ["text to ", ...kind(schema.additionalProperties)];
  return [schema.type || "anything"];
}

function bounds(schema) {
  const words = { minimum: "at least", maximum: "at most", minLength: "at least", maxLength: "at most",
    minItems: "at least", maxItems: "at most" };
  const units = { Length: " characters", Items: " entries" };
  return Object.keys(words).filter((key) => key in schema)
    .map((key) => `, ${words[key]} ${schema[key]}${units[key.slice(3)] || ""}`).join("");
}

function table(rows) {
  const head = element("tr", ...["Name", "Takes", "Says"].map((name) => element("th", name)));
  const body = rows.map(({ name, schema, required, description }) => element("tr",
    element("td", element("code", name), required ? " (required)" : ""),
    element("td", ...kind(schema), bounds(schema)),
    element("td", description || schema.description || "")));
  const wide = element("div", element("table", head, ...body));
  wide.className = "wide";
  return wide;
}

function answers(responses) {
  const fine = Object.keys(responses).filter((status) => status < 400);
  const failed = Object.keys(responses).filter((status) => status >= 400);
  const parts = [fine, failed].filter((statuses) => statuses.length).map((statuses) => {
    const content = Object.values(responses[statuses[0]].content || {})[0] || {};
    return element("li", `${statuses.join(", ")}: `, ...kind(content.schema));
  });
  return element("ul", ...parts);
}

function address(path, method, operation, schemas) {
  const parts = [element("h3", `${method.toUpperCase()} ${path}`), element("p", operation.description || "")];
  if (operation.parameters) parts.push(table(operation.parameters));
  const body = operation.requestBody && operation.requestBody.content["application/json"].schema;
  const data = body && (schemas[body.$ref.split("/").pop()].examples || [])[0];
  if (body) parts.push(element("p", "Body: ", ...kind(body)));
  const url = new URL(".", document.baseURI).href + path.slice(1);
  const token = operation.security && operation.security.length ? ` -H "authorization: Bearer $ITEMESE_TOKEN"` : "";
  const sent = data ? ` -H "content-type: application/json" \\\n  -d '${JSON.stringify(data)}'` : "";
  const verb = method === "get" || data ? "" : ` -X ${method.toUpperCase()}`;
  if (data || !body) parts.push(element("pre", `curl -s${verb} ${url}${token}${sent}`));
  return element("article", ...parts, element("p", "Answers:"), answers(operation.responses));
}

function message(name, schema) {
  const title = element("h3", name);
  title.id = name;
  const required = schema.required || [];
  const rows = Object.entries(schema.properties || {})
    .map(([field, one]) => ({ name: field, schema: one, required: required.includes(field) }));
  return element("article", title, element("p", schema.description || ""), table(rows));
}

async function show() {
  const about = document.getElementById("about");
  try {
    const spec = await (await fetch("openapi.json")).json();
    const schemas = spec.components.schemas;
    about.textContent = `${spec.info.title} ${spec.info.version}. ${spec.info.description}`;
    document.getElementById("addresses").append(...Object.entries(spec.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, one]) => address(path, method, one, schemas))));
    document.getElementById("messages").append(
      ...Object.entries(schemas).map(([name, schema]) => message(name, schema)));
  } catch (error) {
    about.textContent = `The description cannot be shown (${error.message}). It is openapi.json.`;
  }
}
show();
