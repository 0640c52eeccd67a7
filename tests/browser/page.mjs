// Drives the page of a host in a real browser: page.mjs PLAYWRIGHT CHROMIUM ADDRESS STORE
// Ends with 1 and a sentence when the page does not do what it should.

import { createRequire } from "node:module";

const [playwright, executablePath, address, store] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const check = (holds, sentence) => {
  if (!holds) throw new Error(sentence);
};

try {
  const page = await browser.newPage();
  page.setDefaultTimeout(10_000);
  const complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => console.log(`violation: ${event.violatedDirective}`));
  });

  const answer = await page.goto(`${address}?lang=en`);
  check(answer.status() === 200, `the page answers 200, got ${answer.status()}`);
  const policy = answer.headers()["content-security-policy"] ?? "";
  check(policy.includes("form-action 'self'") && !policy.includes("script-src"), `the policy, got ${policy}`);
  const width = await page.evaluate(() => getComputedStyle(document.body).maxWidth);
  check(width !== "none", "the style of the page applies");

  // By keyboard, as a person would.
  await page.getByLabel("Calendar of store").fill(store);
  await Promise.all([page.waitForURL(/store=/), page.keyboard.press("Enter")]);
  check(new URL(page.url()).searchParams.get("store") === store, `the form asks for the store, got ${page.url()}`);
  check(await page.locator("table.cal").count() === 1, "the calendar of the store is shown");
  await page.getByRole("link", { name: "Month before" }).click();
  check(new URL(page.url()).searchParams.has("month"), `a link leads to the month before, got ${page.url()}`);
  check(complaints.length === 0, `the browser has nothing to complain of, got ${complaints}`);

  // What the policy is there for.
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "document.title = 'broken in'";
    document.body.append(script);
  });
  check(await page.title() === "Ribera", "an inline script does not run");
  await page.evaluate(() => {
    const form = document.querySelector("form");
    form.action = "http://127.0.0.1:1/stolen";
    form.elements.store.value = "x";
    form.submit();
  });
  await page.waitForTimeout(300);
  check(!page.url().includes("stolen"), `a form to elsewhere is not sent, got ${page.url()}`);
  const found = complaints.filter((line) => line.startsWith("violation: "));
  check(found.some((line) => line.includes("script-src")) && found.some((line) => line.includes("form-action")),
    `both are told as violations, got ${complaints}`);
} catch (error) {
  console.error(`page.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
