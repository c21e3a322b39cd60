import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

import { formatState, parseState, type UrlState } from './urlstate';

/** How long the state rests before it is written into the URL. */
const URL_REST_MS = 200;

/** Steps that follow each other faster than anybody can look are one: a step costs the browser milliseconds. */
const STEP_MS = 300;

/** `push` makes a step that the browser's back button undoes. */
export type ChangeState = (fields: Partial<UrlState>, how?: 'push' | 'replace') => void;

/** The state in the URL's fragment. */
export function useUrlState(): [UrlState, ChangeState] {
  const [state, setState] = useState(() => parseState(window.location.hash));
  const latest = useRef(state);
  latest.current = state;
  // Browsers refuse more than some 100 changes of the URL in half a minute, and an arrow key that is held
  // makes thirty a second: what makes no step in the history is written when it has come to rest.
  const waiting = useRef<number | undefined>(undefined);
  const steppedAt = useRef(-Infinity);
  useEffect(() => {
    const onChange = (): void => {
      window.clearTimeout(waiting.current);
      setState(parseState(window.location.hash));
    };
    window.addEventListener('popstate', onChange);
    window.addEventListener('hashchange', onChange);
    return () => {
      window.removeEventListener('popstate', onChange);
      window.removeEventListener('hashchange', onChange);
    };
  }, []);
  const change = useCallback<ChangeState>((fields, how = 'push') => {
    const next = { ...latest.current, ...fields };
    const [before, fragment] = [formatState(latest.current), formatState(next)];
    window.clearTimeout(waiting.current);
    const now = performance.now();
    const isStep = how === 'push' && fragment !== before;
    const follows = now - steppedAt.current < STEP_MS;
    if (isStep) steppedAt.current = now;
    if (isStep && !follows) {
      // The step begins where the visitor is, which may not have been written yet.
      if (window.location.hash !== before) window.history.replaceState(null, '', before);
      window.history.pushState(null, '', fragment);
    } else {
      waiting.current = window.setTimeout(() => window.history.replaceState(null, '', fragment), URL_REST_MS);
    }
    latest.current = next;
    setState(next);
  }, []);
  return [state, change];
}
