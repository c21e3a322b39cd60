// The bar at the top: which page, what is chosen there, and what is the same on all pages.

import type { ComponentChildren, JSX } from 'preact';

import type { Theme } from '../flamegraph/colours';
import type { Command } from '../flamegraph/keyboard';
import flame from './flame.svg';
import { PAGES, type PageName, type UrlState } from './urlstate';
import type { ChangeState } from './useUrlState';

/** What of the bar is open. */
export type OpenPart = 'service' | 'baseService' | 'time' | 'filters' | 'downloads' | 'help' | '';

export interface PageProps {
  readonly state: UrlState;
  readonly change: ChangeState;
  readonly theme: Theme;
  readonly openPart: OpenPart;
  readonly setOpenPart: (part: OpenPart) => void;
  readonly onTheme: () => void;
  /** For what is no page's own. */
  readonly onCommand: (command: Command) => void;
}

const PAGE_NAMES: Readonly<Record<PageName, string>> = { profiles: 'Profiles', requests: 'Requests' };

export function Bar(
  props: PageProps & { readonly tools: ComponentChildren; readonly children: ComponentChildren },
): JSX.Element {
  const { state, theme } = props;
  return (
    <header class="bar">
      <a class="brand" href="#" title="Start afresh">
        <img src={flame} width="22" height="22" alt="" />
        <span>spanflame</span>
      </a>
      <nav class="views pages" aria-label="Page">
        {PAGES.map((page) => (
          <button
            key={page}
            type="button"
            aria-pressed={state.page === page}
            title={`${PAGE_NAMES[page]} (q)`}
            onClick={() => props.change(page === state.page ? {} : { page, zoom: '', selected: '', trace: '', span: '', source: '', base: '' })}
          >
            {PAGE_NAMES[page]}
          </button>
        ))}
      </nav>
      {props.children}
      <div class="tools">
        {props.tools}
        <button type="button" class="square" title="Light or dark" aria-label="Light or dark" onClick={props.onTheme}>
          {theme === 'dark' ? '☀' : '☾'}
        </button>
        <button type="button" class="square" title="Keys (?)" aria-label="Keys" onClick={() => props.setOpenPart('help')}>
          ?
        </button>
      </div>
    </header>
  );
}
