// What was asked of the server, while it is asked again: the last answer stays until there is a newer one.

import { useEffect, useRef, useState } from 'preact/hooks';

import { Problem, serverNowMs } from './api';

export interface Loaded<Value> {
  /** The last answer, and the question it was to; it may be another than the present one. */
  readonly value: Value | undefined;
  readonly key: string;
  /** Why the last attempt failed. */
  readonly problem: Problem | undefined;
  /** Whether another question than the one answered is on its way. */
  readonly busy: boolean;
  /** When `value` came, by the clock of the server; 0 if there is none. */
  readonly answeredAtMs: number;
}

const SHORTEST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 15_000;

/**
 * Asks `load` when `key` or `tick` changes, and again when a failure may pass. A tick while the same
 * question is still on its way asks nothing: a slow server would never get to answer. No key, no question.
 */
export function useLoaded<Value>(
  key: string | undefined,
  tick: number,
  load: (signal: AbortSignal) => Promise<Value>,
): Loaded<Value> {
  const [loaded, setLoaded] = useState<Loaded<Value>>({
    value: undefined,
    key: '',
    problem: undefined,
    busy: key !== undefined,
    answeredAtMs: 0,
  });
  const underway = useRef<{ key: string; abort: AbortController; timer: number } | undefined>(undefined);
  const failures = useRef(0);
  const latest = useRef(load);
  latest.current = load;

  const askNow = (wanted: string): void => {
    underway.current?.abort.abort();
    window.clearTimeout(underway.current?.timer);
    const question = { key: wanted, abort: new AbortController(), timer: 0 };
    underway.current = question;
    setLoaded((before) => ({ ...before, busy: before.key !== wanted }));
    latest.current(question.abort.signal).then(
      (value) => {
        if (underway.current !== question) return;
        underway.current = undefined;
        failures.current = 0;
        setLoaded({ value, key: wanted, problem: undefined, busy: false, answeredAtMs: serverNowMs() });
      },
      (error: unknown) => {
        if (underway.current !== question) return;
        const problem = error instanceof Problem ? error : new Problem('broken', String(error));
        if (problem.passes) {
          const wait = Math.min(LONGEST_WAIT_MS, SHORTEST_WAIT_MS * 2 ** failures.current++);
          const waitMs = Math.max(wait, problem.retryAfterS * 1e3);
          // While it waits, the question counts as being on its way.
          question.timer = window.setTimeout(() => askNow(wanted), waitMs);
        } else {
          underway.current = undefined;
        }
        setLoaded((before) => ({ ...before, problem, busy: false }));
      },
    );
  };

  useEffect(() => {
    if (underway.current?.key === key) return;
    failures.current = 0;
    if (key === undefined) {
      underway.current?.abort.abort();
      window.clearTimeout(underway.current?.timer);
      underway.current = undefined;
      setLoaded({ value: undefined, key: '', problem: undefined, busy: false, answeredAtMs: 0 });
      return;
    }
    askNow(key);
  }, [key, tick]);
  useEffect(
    () => () => {
      underway.current?.abort.abort();
      window.clearTimeout(underway.current?.timer);
      underway.current = undefined;
    },
    [],
  );
  return loaded;
}

/** Counts up in this rhythm while `active` and while the page is seen, and at once when it is seen again. */
export function useTicks(active: boolean, everyMs: number): [number, () => void] {
  const [ticks, setTicks] = useState(0);
  const tick = (): void => setTicks((before) => before + 1);
  useEffect(() => {
    if (!active) return;
    let missed = false;
    const timer = window.setInterval(() => {
      missed = document.hidden;
      if (!document.hidden) tick();
    }, everyMs);
    const onVisible = (): void => {
      if (!document.hidden && missed) tick();
      missed = false;
    };
    document.addEventListener('visibilitychange', onVisible);
    return () => {
      window.clearInterval(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, [active, everyMs]);
  return [ticks, tick];
}
