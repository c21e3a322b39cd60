// Asks this server. What comes back is checked as far as the page relies on it.

import { ColumnarError, decodeColumnar, type ColumnarFile } from '../flamegraph/columnar';
import type { FunctionVerdict, LineVerdict, Verdict, Verdicts } from '../flamegraph/verdicts';

/**
 * Why there is no answer: the server cannot be reached; it wants a token; refuses; has no such thing; does
 * not understand; is not ready; or what came makes no sense.
 */
export type ProblemKind = 'offline' | 'unauthorized' | 'forbidden' | 'missing' | 'invalid' | 'busy' | 'broken';

export class Problem extends Error {
  override readonly name = 'Problem';

  constructor(
    readonly kind: ProblemKind,
    message: string,
    /** When the server says to ask again, 0 if it does not. */
    readonly retryAfterS = 0,
  ) {
    super(message);
  }

  /** Whether the same question may be answered a little later. */
  get passes(): boolean {
    return this.kind === 'offline' || this.kind === 'busy';
  }
}

export interface Service {
  readonly name: string;
  readonly samples: number;
  readonly types: readonly string[];
}

export interface ProfileType {
  readonly name: string;
  readonly unit: string;
}

export interface Timeline {
  readonly stepMs: number;
  readonly points: readonly { readonly ms: number; readonly value: number }[];
}

/** An answer that takes longer is given up: the server, or the way to it, is gone. */
const PATIENCE_MS = 60_000;

/**
 * Where the API is. Without what a visitor may have put before the host: a browser refuses requests to
 * `http://x:TOKEN@host/`, and sends the token by itself.
 */
export function serverUrl(): string {
  const { origin, pathname } = window.location;
  return origin + pathname.slice(0, pathname.lastIndexOf('/') + 1);
}

let skewMs = 0;

/** The present by the clock of the server, which is the one that ranges are of. */
export function serverNowMs(): number {
  return Date.now() + skewMs;
}

function learnClock(response: Response): void {
  const date = Date.parse(response.headers.get('Date') ?? '');
  // The header has whole seconds, and was written a moment ago.
  if (!Number.isNaN(date)) skewMs = Math.abs(date - Date.now()) > 3_000 ? date - Date.now() : 0;
}

export async function ask(path: string, signal: AbortSignal): Promise<Response> {
  const url = new URL(path, serverUrl());
  // The path may stand in the URL, which anybody may have made.
  if (url.origin !== window.location.origin) {
    throw new Problem('invalid', `${url.origin} is another server: only graphs of this one are shown`);
  }
  const patience = new AbortController();
  const stop = (): void => patience.abort();
  signal.addEventListener('abort', stop);
  const timer = window.setTimeout(stop, PATIENCE_MS);
  try {
    const response = await fetch(url, { signal: patience.signal });
    learnClock(response);
    if (response.ok) return response;
    throw await problemOf(response);
  } catch (error) {
    if (signal.aborted || error instanceof Problem) throw error;
    throw new Problem('offline', 'the server does not answer');
  } finally {
    window.clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/** The sentence of the server's error body, or else the status. */
async function problemOf(response: Response): Promise<Problem> {
  const text = (await response.text().catch(() => '')).slice(0, 4096);
  let message = `the server answers ${response.status} ${response.statusText}`.trim();
  try {
    const body = JSON.parse(text) as { message?: unknown } | null;
    if (typeof body?.message === 'string' && body.message !== '') message = body.message;
  } catch {
    // Not every error comes from our own server.
  }
  const { status } = response;
  const kind: ProblemKind =
    status === 401
      ? 'unauthorized'
      : status === 403
        ? 'forbidden'
        : status === 404
          ? 'missing'
          : status === 429 || status >= 500
            ? 'busy'
            : 'invalid';
  return new Problem(kind, message, Number(response.headers.get('Retry-After')) || 0);
}

export async function json(path: string, signal: AbortSignal): Promise<Record<string, unknown>> {
  const response = await ask(path, signal);
  try {
    const body: unknown = await response.json();
    if (typeof body === 'object' && body !== null) return body as Record<string, unknown>;
  } catch (error) {
    if (signal.aborted) throw error;
  }
  throw new Problem('broken', `${path.replace(/\?.*/, '')}: what the server sent is no JSON object`);
}

export function list(body: Record<string, unknown>, key: string): Record<string, unknown>[] {
  const rows = body[key];
  if (!Array.isArray(rows)) throw new Problem('broken', `the server sent no list of ${key}`);
  return rows.filter((row): row is Record<string, unknown> => typeof row === 'object' && row !== null);
}

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');
export const numberOf = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0);

/** Those with the most samples first. */
export async function fetchServices(range: URLSearchParams, signal: AbortSignal): Promise<Service[]> {
  const body = await json(`api/v1/services?${range.toString()}`, signal);
  return list(body, 'services')
    .map((row) => ({
      name: textOf(row.name),
      samples: numberOf(row.samples),
      types: Array.isArray(row.types) ? row.types.map((type) => textOf(nameOf(type))) : [],
    }))
    .sort((one, other) => other.samples - one.samples || (one.name < other.name ? -1 : 1));
}

const nameOf = (type: unknown): unknown =>
  typeof type === 'object' && type !== null ? (type as { name?: unknown }).name : type;

export async function fetchTypes(range: URLSearchParams, signal: AbortSignal): Promise<ProfileType[]> {
  const body = await json(`api/v1/profiles/types?${range.toString()}`, signal);
  return list(body, 'types').map((row) => ({ name: textOf(row.name), unit: textOf(row.unit) }));
}

export async function fetchTimeline(fields: URLSearchParams, signal: AbortSignal): Promise<Timeline> {
  const body = await json(`api/v1/profiles/timeline?${fields.toString()}`, signal);
  const points = list(body, 'points').map((row) => ({ ms: timeOf(row.time), value: numberOf(row.value) }));
  return { stepMs: numberOf(body.step_s) * 1e3, points: points.filter((point) => point.ms > 0) };
}

const VERDICTS: readonly string[] = ['regressed', 'improved', 'unchanged', 'inconclusive', 'moved'];

function lineVerdict(value: unknown): LineVerdict | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { verdict, effect, low, high, smallest_effect: smallest } = value as Record<string, unknown>;
  // What this page does not know is no mark.
  if (!VERDICTS.includes(textOf(verdict))) return undefined;
  const known = (number: unknown): number | undefined =>
    typeof number === 'number' && Number.isFinite(number) ? number : undefined;
  return { verdict: verdict as Verdict, effect: known(effect), low: known(low), high: known(high), smallestEffect: known(smallest) };
}

export function parseVerdicts(body: Record<string, unknown>): Verdicts {
  const ofFrame = new Map<string, FunctionVerdict>();
  const functions: FunctionVerdict[] = [];
  for (const row of list(body, 'functions')) {
    const [self, total] = [lineVerdict(row.self), lineVerdict(row.total)];
    if (self === undefined && total === undefined) continue;
    const one = { name: textOf(row.name), movedFrom: textOf(row.moved_from), self, total };
    functions.push(one);
    for (const frame of list(row, 'frames')) ofFrame.set(`${textOf(frame.name)}\0${textOf(frame.module)}`, one);
  }
  const side = body.new;
  return {
    decided: body.decided === true,
    reason: textOf(body.reason),
    minShare: numberOf(body.min_share),
    stretches: typeof side === 'object' && side !== null ? numberOf((side as Record<string, unknown>).stretches) : 0,
    ofFrame,
    functions,
  };
}

export async function fetchVerdicts(path: string, signal: AbortSignal): Promise<Verdicts> {
  return parseVerdicts(await json(path, signal));
}

/** A moment as Unix seconds or RFC 3339. */
function timeOf(value: unknown): number {
  if (typeof value === 'number') return value * 1e3;
  const parsed = Date.parse(textOf(value));
  return Number.isNaN(parsed) ? 0 : parsed;
}

export async function fetchGraph(path: string, signal: AbortSignal): Promise<ColumnarFile> {
  return graphOf(await ask(path, signal), signal);
}

export async function graphOf(response: Response, signal: AbortSignal): Promise<ColumnarFile> {
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem('offline', 'the server stopped answering half-way');
  }
  try {
    return decodeColumnar(bytes);
  } catch (error) {
    if (error instanceof ColumnarError) throw new Problem('broken', error.message);
    throw error;
  }
}
