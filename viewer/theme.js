// Sets the theme before the page is first painted, so that nothing flashes. A classic script on purpose: a module
// would run too late.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('edgelog.theme');
  } catch {
    // Storage is denied: the system's preference holds.
  }
  if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme;
})();
