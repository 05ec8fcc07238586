(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), themes = read("themes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coloured = new Set(["color", "colorscale", "gridcolor", "bgcolor", "bordercolor"]);
  const paint = (value, theme, key) => {
    if (Array.isArray(value)) return value.map((one) => paint(one, theme, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, one]) => [k, paint(one, theme, k)]));
    return coloured.has(key) && Object.hasOwn(theme, value) ? theme[value] : value;
  };
  const draw = (name) => {
    const theme = themes[name || (dark.matches ? "dark" : "light")];
    const family = getComputedStyle(document.body).fontFamily;
    const common = {
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", dragmode: false,
      font: { family, size: 12, color: theme["--ink"] },
      hoverlabel: { bgcolor: theme["--raised"], bordercolor: theme["--line"], font: { family, color: theme["--ink"] } },
    };
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = paint(figures[place.dataset.figure], theme, "");
      Plotly.react(place, figure.data, { ...common, ...figure.layout }, { displayModeBar: false, responsive: true });
    }
  };
  draw();
  dark.addEventListener("change", () => draw());
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    draw("light");
  });
  window.addEventListener("afterprint", () => draw());
})();
