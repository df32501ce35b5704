// Orthanc's REST API as the pages use it. They lie in {prefix}/covid/app/, whatever the prefix of a proxy is.

import { problem } from './words.js';

const ROOT = new URL('../../', document.baseURI);

export class OrthancError extends Error {
  constructor(status, body) {
    super(problem(status, body));
    this.status = status;
  }
}

/** Address of a path of the REST API, such as /series. */
export function address(path) {
  return new URL(path.slice(1), ROOT).href;
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(address(path), options);
  } catch (error) {
    throw new OrthancError(0, '');
  }
  if (!answer.ok) {
    throw new OrthancError(answer.status, await answer.text());
  }
  return answer;
}

export async function getJson(path) {
  return (await request(path, { cache: 'no-cache' })).json();
}

export async function getBytes(path) {
  return (await request(path, {})).arrayBuffer();
}

export async function post(path, body) {
  const options = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  return (await request(path, options)).json();
}

/** A value, or null where Orthanc does not have it. */
export async function orNull(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.status === 404) {
      return null;
    }
    throw error;
  }
}
