// The whole of it: what is chosen, from the URL, and the page that shows it.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import type { Theme } from '../flamegraph/colours';
import type { Command } from '../flamegraph/keyboard';
import type { OpenPart } from './Bar';
import { Help } from './Help';
import { ProfilePage } from './ProfilePage';
import { RequestsPage } from './RequestsPage';
import { applyTheme, initialTheme, rememberTheme } from './theme';
import { useUrlState } from './useUrlState';

export function App(): JSX.Element {
  const [state, change] = useUrlState();
  const [theme, setTheme] = useState<Theme>(() => {
    const theme = initialTheme();
    applyTheme(theme);
    return theme;
  });
  const [openPart, setOpenPart] = useState<OpenPart>('');
  const flipTheme = (): void => {
    const other = theme === 'dark' ? 'light' : 'dark';
    applyTheme(other);
    rememberTheme(other);
    setTheme(other);
  };
  const obey = (command: Command): void => {
    if (command.do === 'help') setOpenPart(openPart === 'help' ? '' : 'help');
    if (command.do === 'page') change({ page: state.page === 'profiles' ? 'requests' : 'profiles', zoom: '', selected: '' });
  };
  const page = { state, change, theme, openPart, setOpenPart, onTheme: flipTheme, onCommand: obey };
  return (
    <div class="page">
      {state.page === 'requests' ? <RequestsPage {...page} /> : <ProfilePage {...page} />}
      {openPart === 'help' && <Help onClose={() => setOpenPart('')} />}
    </div>
  );
}
