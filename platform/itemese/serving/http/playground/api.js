// Calls of the service; every failure becomes a `Failure` with words for the person at the page.

export class Failure extends Error {
  /** kind: network, token, busy, request or service; retryAfter: seconds. */
  constructor(kind, text, retryAfter = 1) {
    super(text);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

const ATTEMPTS = 3;
let token = "";

export function setToken(text) {
  token = text.trim();
}

export const hasToken = () => token !== "";

/** Return the content of an answer; with a body the method is POST. */
export async function call(path, body, signal) {
  const headers = body ? { "content-type": "application/json" } : {};
  if (/[^\x21-\x7e]/.test(token)) {
    throw new Failure("token", "A token has letters, digits and signs only. Enter it again.");
  }
  if (token) headers.authorization = `Bearer ${token}`;
  const method = body ? "POST" : "GET";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const text = `The service does not answer. Check that it runs at ${location.origin}, then try again.`;
    throw new Failure("network", text);
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content) return content;
  throw failure(answer, content?.error);
}

function failure(answer, error) {
  const text = error?.message ?? `The service answered with status ${answer.status}. Try again.`;
  if (answer.status === 401 && token) {
    return new Failure("token", "The service refuses this token. Check it and enter it again.");
  }
  if (answer.status === 401 && text.startsWith("`Authorization`")) {
    return new Failure("token", "This service answers with a token only. Enter it under Access.");
  }
  if (answer.status === 503) {
    const seconds = Number(answer.headers.get("retry-after"));
    return new Failure("busy", text, seconds > 0 ? seconds : 1);
  }
  if (answer.status >= 500) {
    const number = error?.request_id ? ` Its request_id is ${error.request_id}.` : "";
    return new Failure("service", text + number);
  }
  return new Failure("request", text);
}

/** Call; a busy service is asked again after the pause that it asks for, which `waiting` gets. */
export async function patientCall(path, body, signal, waiting) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call(path, body, signal);
    } catch (error) {
      if (error.kind !== "busy") throw error;
      if (attempt === ATTEMPTS) {
        const text = `The service is overloaded: it refused ${ATTEMPTS} attempts. Wait a moment, then try again.`;
        throw new Failure("busy", text, error.retryAfter);
      }
      waiting(error.retryAfter);
      await new Promise((done) => setTimeout(done, 1000 * error.retryAfter));
      signal.throwIfAborted();
    }
  }
}
