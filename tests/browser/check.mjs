// Reports in Chromium, driven by scripts/check_report from a directory that has the pages and what nanorun says of the
// same experiments as JSON.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const shots = process.env.SHOTS;
if (shots) mkdirSync(shots, { recursive: true });
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 375, height: 812 };
const close = (a, b, digits, what) => assert.ok(Math.abs(a - b) <= 10 ** -digits * Math.max(1, Math.abs(b)), `${what}: ${a} is not ${b}`);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  // Chromium refuses its sandbox to root.
  chromiumSandbox: process.getuid() !== 0,
});

// Opens a page in a profile of its own, and holds that it asks for nothing and complains of nothing.
const open = async (file, options, then) => {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  const wrong = [], requests = [];
  page.on("console", (message) => wrong.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => requests.push(request.url()));
  const url = pathToFileURL(file).href;
  await page.goto(url);
  await then(page);
  assert.deepEqual(wrong, [], file);
  assert.deepEqual(requests, [url], file);
  await context.close();
};
const shot = async (page, name) => { if (shots) await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true }); };
const charts = (page) => page.locator("figure[data-chart]");

const drawn = async (page) => {
  const count = await charts(page).count();
  assert.ok(count >= 4, `${count} charts`);
  for (let at = 0; at < count; at++) {
    const inked = await charts(page).nth(at).evaluate((figure) => {
      const canvas = figure.querySelector("canvas");
      if (!canvas) return 0;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let inked = 0;
      for (let byte = 3; byte < data.length; byte += 4) if (data[byte] > 0) inked += 1;
      return inked;
    });
    assert.ok(inked > 1000, `chart ${at} has ${inked} pixels`);
    assert.ok(await charts(page).nth(at).evaluate((figure) => figure.querySelector(".still").getClientRects().length === 0), "the drawing makes way");
  }
};

const range = (figure) => figure.evaluate((element) => [Number(element.dataset.from), Number(element.dataset.to)]);

const zooms = async (page) => {
  const loss = page.locator('figure[data-chart="loss"]'), other = page.locator('figure[data-chart="eval"]');
  const whole = await range(loss);
  assert.deepEqual(whole, [0, 119]);
  await loss.scrollIntoViewIfNeeded();
  const box = await loss.locator(".u-over").boundingBox();
  const reset = page.getByRole("button", { name: "Whole range" });
  assert.equal(await reset.isVisible(), false);
  await page.mouse.move(box.x + box.width * 0.25, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 60, { steps: 5 });
  await page.mouse.up();
  const [from, to] = await range(loss);
  close(from, 119 * 0.25, 1, "zoom from");
  close(to, 119 * 0.5, 1, "zoom to");
  assert.deepEqual(await range(other), [from, to], "charts follow");
  await reset.click();
  assert.deepEqual(await range(loss), whole);
  assert.equal(await reset.isVisible(), false);
};

const answers = async (page) => {
  const loss = page.locator('figure[data-chart="loss"]'), other = page.locator('figure[data-chart="eval"]');
  const place = (figure) => figure.locator(".legend .unit").textContent();
  assert.match(await place(loss), /at the end/);
  await loss.scrollIntoViewIfNeeded();
  const box = await loss.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 50);
  await page.waitForFunction(() => document.querySelector('figure[data-chart="loss"] .unit').textContent.includes(" steps"));
  assert.match(await place(other), /at \d+ steps/, "cursors go together");
  await page.mouse.move(5, 5);
  for (const [axis, end] of [["tokens", 120], ["flops", 120], ["time", 1]]) {
    await page.check(`input[name=x][value=${axis}]`);
    const [, to] = await range(loss);
    const arm = await page.evaluate(() => JSON.parse(document.getElementById("curves-data").textContent).arms[0]);
    if (axis === "tokens") assert.equal(to, end * arm.batch);
    if (axis === "flops") close(to / (end * arm.batch * arm.flops), 1, 9, "FLOPs");
    if (axis === "time") assert.ok(to > 0, "seconds");
  }
  await page.check("input[name=x][value=steps]");
  const lines = () => loss.evaluate((figure) => Number(figure.dataset.drawn));
  assert.equal(await lines(), 3);
  await page.check("input[name=each]");
  assert.equal(await lines(), 9, "every seed");
  await page.uncheck("input[name=each]");
  await loss.locator(".legend button").first().click();
  assert.equal(await lines(), 2, "an arm is hidden");
  await loss.locator(".legend button").first().click();
  const value = () => loss.locator(".legend .value").first().textContent();
  const before = await value();
  await page.locator("input[name=smooth]").fill("0.9");
  assert.notEqual(await value(), before, "smoothed");
  await page.locator("input[name=smooth]").fill("0");
  assert.equal(await value(), before);
};

// What the page says is what nanorun says of the same results.
const numbers = async (page, said) => {
  const table = (id) => page.evaluate((id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) =>
    [...row.cells].map((cell) => cell.querySelector("data")?.getAttribute("value") ?? cell.textContent)), id);
  const runs = await table("runs-table");
  assert.equal(runs.length, said.runs.length);
  runs.forEach((row, at) => {
    const run = said.runs[at];
    assert.equal(`${row[0]} seed=${row[1]}`, run.label);
    assert.equal(Number(row[4]), run.evals.at(-1).values.val_bpb, `${run.label}: val_bpb`);
    assert.equal(Math.fround(Number(row[5])), Math.fround(run.steps.at(-1).loss), `${run.label}: last loss`);
    assert.equal(Number(row[6]), run.tokens_per_second);
    assert.equal(row[7], run.result_hash.slice(0, 12));
  });
  const places = await table("environments-table");
  places.forEach((row, at) => {
    assert.equal(row[2], said.runs[at].run_key);
    assert.equal(row[3], said.runs[at].result_hash);
  });
  // Curves, to the digits that a page has.
  const data = await page.evaluate(() => JSON.parse(document.getElementById("curves-data").textContent));
  const chart = (id) => data.charts.find((chart) => chart.id === id);
  data.arms.forEach((arm, place) => {
    const own = said.runs.filter((run) => run.label.startsWith(`${arm.name} seed=`));
    assert.ok(own.length > 0, arm.name);
    const mean = (value) => own.map(value).reduce((a, b) => a + b, 0) / own.length;
    const line = chart("loss").lines.find((line) => line.arm === place);
    assert.equal(line.y.length, 120);
    line.y.forEach((value, step) => close(value, mean((run) => run.steps[step].loss), 3.9, `loss of step ${step}`));
    line.lo.forEach((value, step) => close(value, Math.min(...own.map((run) => run.steps[step].loss)), 3.9, "band"));
    const evals = chart("eval").lines.find((line) => line.arm === place);
    evals.y.forEach((value, at) => close(value, mean((run) => run.evals[at].values.val_bpb), 3.9, "evaluation"));
    close(line.t.at(-1), mean((run) => run.steps.reduce((sum, step) => sum + step.seconds, 0)), 3.9, "time");
  });
  return { table };
};

const accessible = async (page, what) => {
  for (const details of await page.locator("details").all()) await details.evaluate((element) => { element.open = true; });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
  }));
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  assert.deepEqual(told, [], what);
};

const fits = async (page, what) => {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= room, `${what} scrolls sideways: ${wide} of ${room}`);
};

const harmless = (page) => page.evaluate(() => {
  const evil = [...document.querySelectorAll("img, iframe, object, embed, link, base, b, svg[onload], [onerror]")];
  return evil.map((element) => element.outerHTML);
});

await open("plain.html", {}, async (page) => {
  await drawn(page);
  await numbers(page, JSON.parse(readFileSync("plain.json", "utf8")));
  await zooms(page);
  await answers(page);
  await shot(page, "desktop-light");
});
for (const [name, file] of [["markup", "markup.html"], ["both", "both.html"], ["plain", "plain.html"], ["asked", "asked.html"]]) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
      await open(file, { colorScheme, viewport, reducedMotion: "reduce" }, async (page) => {
        await drawn(page);
        await fits(page, `${name} on a ${size}`);
        await shot(page, `${name}-${size}-${colorScheme}`);
        await accessible(page, `${name}, ${size}, ${colorScheme}`);
        await fits(page, `${name} on a ${size}, all opened`);
      });
    }
  }
}
await open("markup.html", {}, async (page) => {
  const evil = "</script></title></style><img src=x onerror=evil()><svg onload=evil()>\"'><!-- &lt;\\u202e\\u2066";
  assert.deepEqual(await harmless(page), []);
  assert.equal(await page.evaluate(() => document.querySelectorAll("script").length), 2);
  assert.ok((await page.locator("h1").textContent()).startsWith(evil), await page.locator("h1").textContent());
  const label = "</script><img src=x onerror=evil()>\"'<!-- \\u202e&lt;";
  assert.ok((await page.locator("#arms-table").textContent()).includes(label));
  assert.ok((await page.locator('figure[data-chart="loss"] .legend').textContent()).includes(label));
  const text = await page.evaluate(() => document.body.innerText);
  assert.ok(!/[\u202a-\u202e\u2066-\u2069\u0000-\u0008]/.test(text), "characters that turn the direction of writing");
});
await open("asked.html", {}, async (page) => {
  const { scaling } = JSON.parse(readFileSync("asked.json", "utf8"));
  const shown = await page.locator("#scaling + figure").textContent();
  assert.ok(shown.includes("params"), shown);
  assert.deepEqual(scaling.notes.filter((note) => note.includes("interim")), [], "seeds that a look made needless are not waited for");
  assert.equal(await page.locator("#looks-table tbody tr").count(), 2);
  assert.ok((await page.locator("#verdicts-why").textContent()).includes("to spare"));
  const [wide, room] = await page.locator(".scroll:has(#verdicts-table)").evaluate((box) => [box.scrollWidth, box.clientWidth]);
  assert.ok(wide <= room, `the verdicts take ${wide} of ${room}`);
});
// Figures are whole XML, and nothing in them acts. In a page of its own: the policy of a report forbids their style.
const blank = await browser.newPage();
for (const file of ["markup.svgs", "plain.svgs", "asked.svgs"].flatMap((dir) => readdirSync(dir).map((file) => join(dir, file)))) {
  const found = await blank.evaluate((svg) => {
    const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
    return [parsed.querySelector("parsererror")?.textContent ?? null, parsed.documentElement.nodeName,
      parsed.querySelectorAll("script, image, a, foreignObject, [onload]").length];
  }, readFileSync(file, "utf8"));
  assert.deepEqual(found, [null, "svg", 0], file);
}
await blank.close();
for (const viewport of [DESKTOP, PHONE]) {
  await open("plain.html", { javaScriptEnabled: false, viewport }, async (page) => {
    const still = page.locator(`.still .${viewport === PHONE ? "for-narrow" : "for-wide"} svg`);
    assert.equal(await still.count(), await charts(page).count());
    for (const svg of await still.all()) {
      const box = await svg.boundingBox();
      assert.ok(box.width > 300 && box.height > 150, "a drawing without scripts");
    }
    assert.equal(await page.locator(".toolbar").first().isVisible(), false);
    await shot(page, `no-scripts-${viewport.width}`);
  });
}
await open("plain.html", { colorScheme: "dark" }, async (page) => {
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  assert.equal(await page.locator(".live").first().isVisible(), false);
  assert.equal(await page.locator(".still svg").first().isVisible(), true);
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor), "rgb(255, 255, 255)");
  const pdf = await page.pdf({ format: "A4", ...(shots ? { path: join(shots, "print.pdf") } : {}) });
  const pages = pdf.toString("latin1").match(/\/Type\s*\/Page\b/g).length;
  assert.ok(pdf.length > 20_000 && pages >= 2 && pages <= 16, `${pages} pages`);
});
await browser.close();
console.log("reports in a browser: drawn, zoomed, read, printed; the same numbers; nothing asked for, nothing complained of");
