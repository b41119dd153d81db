// Moving about: links into what is folded, the list of contents, figures in full width.

function targetOf(hash) {
  const [id] = hash.slice(1).split("?");
  return id ? byId(id) : null;
}

// A link to what is folded, or into it, opens it.
function unfold() {
  const target = targetOf(location.hash);
  if (!target) return;
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
}

function startSections() {
  addEventListener("hashchange", unfold);
  unfold();
  const contents = byId("contents");
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a")) contents.open = false;
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") contents.open = false;
  });
  document.querySelectorAll("figure.of-data").forEach((figure) => {
    const enlarge = button("Larger", () => {
      const large = figure.classList.toggle("large");
      enlarge.textContent = large ? "Smaller" : "Larger";
    }, { class: "quiet enlarge" });
    figure.querySelector("figcaption").prepend(enlarge);
  });
}
