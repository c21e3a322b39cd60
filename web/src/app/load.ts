// Fetches a columnar flame graph from this server.

import { ColumnarError, decodeColumnar, type ColumnarFile } from '../flamegraph/columnar';

/** What could not be loaded, and why, for a person. */
export class LoadError extends Error {
  override readonly name = 'LoadError';
}

/** @throws {LoadError} */
export async function loadGraph(source: string, signal: AbortSignal): Promise<ColumnarFile> {
  const url = new URL(source, document.baseURI);
  // The source stands in the URL, which anybody may have made.
  if (url.origin !== window.location.origin) {
    throw new LoadError(`${url.origin} is another server: only graphs of this one are shown`);
  }
  let response: Response;
  try {
    response = await fetch(url, { signal, headers: { Accept: 'application/octet-stream' } });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new LoadError('the server does not answer');
  }
  if (!response.ok) throw new LoadError(await problemOf(response));
  const bytes = new Uint8Array(await response.arrayBuffer());
  try {
    return decodeColumnar(bytes);
  } catch (error) {
    if (error instanceof ColumnarError) throw new LoadError(error.message);
    throw error;
  }
}

/** The sentence of the server's error body, or else the status. */
async function problemOf(response: Response): Promise<string> {
  const text = (await response.text().catch(() => '')).slice(0, 4096);
  try {
    const body = JSON.parse(text) as { message?: unknown } | null;
    const message = body?.message;
    if (typeof message === 'string' && message !== '') return message;
  } catch {
    // Not every error comes from our own server.
  }
  return `the server answers ${response.status} ${response.statusText}`.trim();
}
