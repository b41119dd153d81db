// What runs once the page is there; each part by itself, so that one that fails takes no other with it.

for (const start of [startSections, startTables, startExplorer, startDrilldown]) {
  Promise.resolve()
    .then(start)
    .catch((problem) => {
      byId("problem").hidden = false;
      byId("problem").textContent = `A part of this page could not be started (${problem.message}): a browser of 2023 or later is needed.`;
    });
}
