// Light or dark: what the visitor chose here before, else what the system says.

import type { Theme } from '../flamegraph/colours';

const KEY = 'spanflame.theme';

export function initialTheme(): Theme {
  try {
    const chosen = window.localStorage.getItem(KEY);
    if (chosen === 'light' || chosen === 'dark') return chosen;
  } catch {
    // Storage may be forbidden; the system's choice is as good.
  }
  return window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

/** Shows it from now on. To be called before what draws with its colours is drawn. */
export function applyTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
}

export function rememberTheme(theme: Theme): void {
  try {
    window.localStorage.setItem(KEY, theme);
  } catch {
    // As above.
  }
}
