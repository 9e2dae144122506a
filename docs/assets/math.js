// Formulas that Markdown has marked, drawn by the copy of KaTeX in this folder.
for (const place of document.querySelectorAll(".arithmatex")) {
  const display = place.tagName === "DIV";
  const formula = place.textContent.trim().replace(/^\\[([]/, "").replace(/\\[)\]]$/, "");
  katex.render(formula, place, {displayMode: display, throwOnError: false});
}
