// A button, and what opens below it: closes by Escape, by a click elsewhere, or when the focus leaves.

import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';

export function Popover(props: {
  readonly name: string;
  readonly title: string;
  /** What stands on the button. */
  readonly face: ComponentChildren;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly role?: 'dialog' | 'listbox' | 'menu';
  readonly disabled?: boolean;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { name, open, onOpen } = props;
  const whole = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!open) return;
    const onPointer = (event: PointerEvent): void => {
      if (event.target instanceof Node && whole.current?.contains(event.target) === false) onOpen(false);
    };
    window.addEventListener('pointerdown', onPointer, true);
    return () => window.removeEventListener('pointerdown', onPointer, true);
  }, [open]);

  // Below the button, but never beyond the window's edges.
  useLayoutEffect(() => {
    const element = panel.current;
    if (!open || element === null) return;
    element.style.translate = '';
    const box = element.getBoundingClientRect();
    const beyond = box.right - (document.documentElement.clientWidth - 8);
    const shift = beyond > 0 ? -Math.min(beyond, box.left - 8) : Math.max(0, 8 - box.left);
    if (shift !== 0) element.style.translate = `${shift}px 0`;
    element.querySelector<HTMLElement>('[data-first]')?.focus();
  }, [open]);

  const close = (): void => {
    onOpen(false);
    button.current?.focus();
  };
  return (
    <div
      ref={whole}
      class={`popover ${name}`}
      onKeyDown={(event) => {
        if (!open) return;
        event.stopPropagation();
        if (event.key === 'Escape') {
          event.preventDefault();
          close();
        }
      }}
      onFocusOut={(event) => {
        const next = event.relatedTarget;
        if (open && next instanceof Node && whole.current?.contains(next) === false) onOpen(false);
      }}
    >
      <button
        ref={button}
        type="button"
        class="face"
        title={props.title}
        aria-label={props.title}
        aria-haspopup={props.role ?? 'dialog'}
        aria-expanded={open}
        disabled={props.disabled}
        onClick={() => onOpen(!open)}
      >
        {props.face}
      </button>
      {open && (
        <div ref={panel} class="popover-panel" role={props.role === 'dialog' ? 'dialog' : undefined} aria-label={props.title}>
          {props.children}
        </div>
      )}
    </div>
  );
}
