import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

import { KEYS } from '../flamegraph/keyboard';

/** The keyboard map, over the page. */
export function Help(props: { readonly onClose: () => void }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-label="Keys"
      onClose={props.onClose}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === '?') dialog.current?.close();
      }}
      onClick={(event) => {
        // The dialog itself, and nothing in it, is what lies around its contents.
        if (event.target === event.currentTarget) event.currentTarget.close();
      }}
    >
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([keys, meaning]) => (
          <div key={keys}>
            <dt>
              {keys.split(/\s+/).map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
