// The keyboard map, in one list that the help shows as well.

import type { Direction, Step } from './view';

export type Command =
  | { readonly do: 'move'; readonly step: Step }
  | { readonly do: 'zoom' | 'out' | 'reset' | 'search' | 'flip' | 'help' | 'sandwich' | 'first' }
  | { readonly do: 'hit' | 'certain' | 'shift'; readonly step: 1 | -1 }
  | { readonly do: 'service' | 'time' | 'live' | 'refresh' | 'compare' | 'download' | 'page' }
  | { readonly do: 'view'; readonly index: number };

export const KEYS: readonly (readonly [string, string])[] = [
  ['← →', 'neighbour in the row'],
  ['↑ ↓', 'caller, widest callee'],
  ['Enter', 'zoom to the frame'],
  ['Esc', 'out again'],
  ['0', 'show everything'],
  ['Home', 'select the root'],
  ['/', 'search; /…/ is a regular expression'],
  ['n  p', 'next, previous hit, however small'],
  ['m  M', 'of a comparison the next, previous frame that has certainly changed'],
  ['s', 'callers and callees of the frame'],
  ['f', 'flame or icicle'],
  ['1 2 3', 'graph, table, sandwich'],
  ['q', 'requests, or profiles'],
  ['w', 'which service'],
  ['t', 'which time'],
  ['[  ]', 'earlier, later'],
  ['l', 'follow the present, or stand still'],
  ['r', 'ask the server again'],
  ['c', 'compare with another time or service'],
  ['d', 'download'],
  ['?', 'this list'],
];

export interface Key {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
}

/** The command of a key, if it has one. Arrows follow the direction in which the graph grows. */
export function commandOf(event: Key, direction: Direction): Command | undefined {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const down: Step = direction === 'icicle' ? 'callee' : 'caller';
  const up: Step = direction === 'icicle' ? 'caller' : 'callee';
  switch (event.key) {
    case 'ArrowLeft':
      return { do: 'move', step: 'left' };
    case 'ArrowRight':
      return { do: 'move', step: 'right' };
    case 'ArrowUp':
      return { do: 'move', step: up };
    case 'ArrowDown':
      return { do: 'move', step: down };
    case 'Enter':
    case ' ':
      return { do: 'zoom' };
    case 'Escape':
      return { do: 'out' };
    case '0':
      return { do: 'reset' };
    case 'Home':
      return { do: 'first' };
    case '/':
      return { do: 'search' };
    case 'n':
      return { do: 'hit', step: 1 };
    case 'p':
    case 'N':
      return { do: 'hit', step: -1 };
    case 'm':
      return { do: 'certain', step: 1 };
    case 'M':
      return { do: 'certain', step: -1 };
    case 's':
      return { do: 'sandwich' };
    case 'f':
      return { do: 'flip' };
    case 'q':
      return { do: 'page' };
    case 'w':
      return { do: 'service' };
    case 't':
      return { do: 'time' };
    case '[':
      return { do: 'shift', step: -1 };
    case ']':
      return { do: 'shift', step: 1 };
    case 'l':
      return { do: 'live' };
    case 'r':
      return { do: 'refresh' };
    case 'c':
      return { do: 'compare' };
    case 'd':
      return { do: 'download' };
    case '?':
      return { do: 'help' };
    case '1':
    case '2':
    case '3':
      return { do: 'view', index: Number(event.key) - 1 };
    default:
      return undefined;
  }
}
