import { useEffect, useRef } from 'preact/hooks';

import { commandOf, type Command } from '../flamegraph/keyboard';
import type { Direction } from '../flamegraph/view';

/** Keys work wherever the focus is, except where text is typed or the part that has the focus takes them. */
export function useGlobalKeys(obey: (command: Command) => void, direction: Direction): void {
  const latest = useRef({ obey, direction });
  latest.current = { obey, direction };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target instanceof HTMLElement ? event.target : document.body;
      if (target.closest('input, textarea, select, dialog') !== null) return;
      const command = commandOf(event, latest.current.direction);
      if (command === undefined) return;
      // Enter and the arrows belong to what has the focus, if something has.
      const takesIt = target.closest('button, a, table, [role=tree], [tabindex]') !== null;
      if (takesIt && (command.do === 'move' || command.do === 'zoom' || command.do === 'first')) return;
      event.preventDefault();
      latest.current.obey(command);
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
}
