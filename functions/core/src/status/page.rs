//! The one page: totals, stores with their lights, the calendar of a store and month, last runs.
//! Plain HTML without scripts: works by keyboard, on a phone, and with a screen reader.

use futures::future::OptionFuture;
use ribera_storage::ledger::{self, LedgerRecord};
use ribera_storage::ports::Ports;
use ribera_storage::{DatasetName, Month, ObjectStore, StoreId};

use super::html::Html;
use super::query::Query;
use super::{Problem, Response, api, text};
use crate::Lang;
use crate::coverage::persist::{Age, Index, PAGE_STORES, PageStore};
use crate::coverage::{DayState, StateCounts, StoreSummary};

/// Runs that the page shows.
const RUNS: usize = 20;

pub async fn respond<S: ObjectStore>(ports: Ports<'_, S>, query: &Query) -> Result<Response, Problem> {
    let lang = query.text("lang").and_then(Lang::parse).unwrap_or_default();
    let (datasets, index, runs) = futures::join!(
        api::known_datasets(ports.objects),
        api::aged_index(ports, query),
        ledger::recent_runs(ports.objects, RUNS)
    );
    let (index, age) = match index {
        Ok(found) => found,
        Err(problem) if problem.code == "no_coverage_yet" => return Ok(empty_page(lang)),
        Err(problem) => return Err(problem),
    };
    let after = query.parsed::<StoreId>("after", "must be a store id")?;
    let store = query.parsed::<StoreId>("store", "must be a store id")?;
    let (stores, selected) = futures::join!(
        api::stores_after(ports.objects, &index, after.as_ref(), PAGE_STORES),
        OptionFuture::from(store.as_ref().map(|store| api::store_of(ports.objects, &index, store)))
    );
    let selected = match (selected.transpose()?.flatten(), store) {
        (None, Some(store)) => return Err(api::no_such_store(&store)),
        (selected, _) => selected,
    };
    let (mut stores, next) = stores?;
    api::with_lights_of(&mut stores, &age);
    let month = query.parsed::<Month>("month", "must be YYYY-MM")?;
    let view = View { lang, datasets: datasets?, index, age, stores, next, selected, month, runs: runs? };
    Ok(Response::ok(HTML, view.render()))
}

const HTML: &str = "text/html; charset=utf-8";

struct View {
    lang: Lang,
    datasets: Vec<DatasetName>,
    index: Index,
    age: Age,
    stores: Vec<StoreSummary>,
    next: Option<StoreId>,
    selected: Option<PageStore>,
    month: Option<Month>,
    runs: Vec<LedgerRecord>,
}

impl View {
    fn render(&self) -> String {
        let mut html = Html::default();
        head(&mut html, self.lang);
        self.bar(&mut html);
        html.raw("<main id=\"main\">");
        self.age(&mut html);
        self.totals(&mut html);
        if let Some(selected) = &self.selected {
            self.calendar(&mut html, selected);
        }
        self.stores(&mut html);
        self.runs(&mut html);
        html.raw("</main></body></html>");
        html.finish()
    }

    /// Links keep language and dataset.
    fn link(&self, html: &mut Html, more: &[(&str, &str)], label: &str) {
        let mut parameters = vec![("lang", self.lang.code()), ("dataset", self.index.dataset.as_str())];
        parameters.extend_from_slice(more);
        html.link(&parameters, label);
    }

    fn bar(&self, html: &mut Html) {
        let lang = self.lang;
        html.raw("<header><h1>Ribera</h1><nav aria-label=\"")
            .text(lang.pick("Conjuntos de datos", "Datasets"))
            .raw("\"><ul>");
        for dataset in &self.datasets {
            let current = *dataset == self.index.dataset;
            html.raw(if current { "<li class=\"current\">" } else { "<li>" });
            html.link(&[("lang", lang.code()), ("dataset", dataset.as_str())], dataset);
            html.raw("</li>");
        }
        html.raw("</ul></nav><p class=\"lang\">");
        let other = match lang {
            Lang::Es => Lang::En,
            Lang::En => Lang::Es,
        };
        html.raw("<a lang=\"").text(other.code()).raw("\" href=\"");
        html.text(super::html::href(&[("lang", other.code()), ("dataset", self.index.dataset.as_str())]));
        html.raw("\">").text(other.pick("Español", "English")).raw("</a></p></header>");
    }

    /// Says in plain words that what follows is old, or that it could not be computed again.
    fn age(&self, html: &mut Html) {
        let lang = self.lang;
        let since = text::moment(self.age.computed_at);
        if self.age.is_old {
            html.raw("<p class=\"warning\" role=\"alert\">").text(pick_text(
                lang,
                format!("Datos antiguos: la cobertura no se calcula desde {since}. Las luces no dicen nada de ahora."),
                format!("Old data: coverage has not been computed since {since}. The lights say nothing of now."),
            ));
            html.raw("</p>");
        }
        if let Some(failed) = &self.age.failed {
            let at = text::moment(failed.tried_at);
            html.raw("<p class=\"warning\" role=\"alert\">").text(pick_text(
                lang,
                format!("El último cálculo ({at}) falló: {}", failed.error),
                format!("The last computation ({at}) failed: {}", failed.error),
            ));
            html.raw("</p>");
        }
    }

    fn totals(&self, html: &mut Html) {
        let (lang, totals) = (self.lang, &self.index.totals);
        html.raw("<section aria-labelledby=\"t\"><h2 id=\"t\">").text(lang.pick("Resumen", "Summary")).raw("</h2><dl>");
        let mut entry = |name: &str, value: String| {
            html.raw("<div>").element("dt", name).element("dd", value).raw("</div>");
        };
        entry(lang.pick("Filas", "Rows"), text::count(lang, totals.rows));
        if let Some(period) = self.index.period {
            entry(lang.pick("Periodo", "Period"), format!("{} – {}", period.from, period.to));
        }
        let of = lang.pick("de", "of");
        entry(
            lang.pick("Tiendas activas", "Active stores"),
            format!("{} {of} {}", text::count(lang, totals.stores_active), text::count(lang, totals.stores_configured)),
        );
        if let Some(mean) = totals.rows_per_month_mean {
            entry(lang.pick("Filas por mes, media", "Rows per month, mean"), text::count(lang, mean.round() as u64));
        }
        for (state, days) in states(&totals.days) {
            if days > 0 && state != DayState::NotExpected {
                let label = format!("{} {}", lang.pick("Días:", "Days:"), text::state(lang, state));
                entry(&label, text::count(lang, days));
            }
        }
        html.raw("</dl><ul class=\"lights\">");
        for (light, stores) in &totals.lights {
            let (sign, class) = text::light_sign(*light);
            html.raw("<li><span aria-hidden=\"true\" class=\"").text(class).raw("\">").text(sign).raw("</span> ");
            html.text(format_args!("{}: {}", text::light(lang, *light), text::count(lang, *stores))).raw("</li>");
        }
        html.raw("</ul><p class=\"note\">");
        html.text(lang.pick("Calculado", "Computed"))
            .raw(" <time>")
            .text(text::moment(self.index.computed_at))
            .raw("</time></p></section>");
    }

    fn stores(&self, html: &mut Html) {
        let lang = self.lang;
        html.raw("<section aria-labelledby=\"s\"><h2 id=\"s\">").text(lang.pick("Tiendas", "Stores")).raw("</h2>");
        self.search(html);
        html.raw("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"s\"><table><thead><tr>");
        let columns = [
            lang.pick("Luz", "Light"),
            lang.pick("Tienda", "Store"),
            lang.pick("Nombre", "Name"),
            lang.pick("Filas", "Rows"),
            lang.pick("% días", "% days"),
            lang.pick("% meses", "% months"),
            lang.pick("Meses con faltas", "Months with gaps"),
            lang.pick("Desde", "Since"),
            lang.pick("Demostrado", "Proven"),
        ];
        column_heads(html, columns);
        for store in &self.stores {
            self.store_row(html, store);
        }
        html.raw("</tbody></table></div>");
        if let Some(next) = &self.next {
            html.raw("<p>");
            self.link(html, &[("after", next.as_str())], lang.pick("Más tiendas", "More stores"));
            html.raw("</p>");
        }
        html.raw("</section>");
    }

    fn search(&self, html: &mut Html) {
        let lang = self.lang;
        html.raw("<form method=\"get\" action=\"/\"><input type=\"hidden\" name=\"lang\" value=\"").text(lang.code());
        html.raw("\"><input type=\"hidden\" name=\"dataset\" value=\"").text(&self.index.dataset);
        html.raw("\"><label for=\"q\">").text(lang.pick("Calendario de la tienda", "Calendar of store"));
        html.raw(
            "</label> <input id=\"q\" name=\"store\" required maxlength=\"32\" pattern=\"[a-z0-9_\\-]+\"> <button>",
        );
        html.text(lang.pick("Ver", "Show")).raw("</button></form>");
    }

    fn store_row(&self, html: &mut Html, store: &StoreSummary) {
        let lang = self.lang;
        let (sign, class) = text::light_sign(store.light);
        html.raw("<tr><td><span aria-hidden=\"true\" class=\"").text(class).raw("\">").text(sign).raw("</span> ");
        html.text(text::light(lang, store.light)).raw("</td><th scope=\"row\">");
        self.link(html, &[("store", store.store.as_str())], store.store.as_str());
        html.raw("</th>").element("td", &store.name);
        for number in [
            text::count(lang, store.rows),
            text::percent(lang, store.day_percent),
            text::percent(lang, store.month_percent),
        ] {
            html.raw("<td class=\"n\">").text(number).raw("</td>");
        }
        let months: Vec<String> = store.missing_months.iter().map(|month| text::month(lang, *month)).collect();
        html.element("td", months.join(", "));
        html.element("td", store.since.map(|since| since.to_string()).unwrap_or_default());
        html.element("td", store.proven_at.map(text::moment).unwrap_or_default()).raw("</tr>");
    }

    fn calendar(&self, html: &mut Html, selected: &PageStore) {
        let (lang, coverage) = (self.lang, &selected.coverage);
        let last = coverage.calendar.to().unwrap_or(coverage.calendar.from());
        let month = self.month.unwrap_or_else(|| Month::of(last));
        html.raw("<section aria-labelledby=\"c\"><h2 id=\"c\">");
        html.text(format_args!("{} · {} · {}", coverage.store, coverage.name, text::month(lang, month)))
            .raw("</h2><p>");
        let store = coverage.store.as_str();
        let neighbours = [
            (month.first_day().yesterday(), lang.pick("← Mes anterior", "← Month before")),
            (month.last_day().tomorrow(), lang.pick("Mes siguiente →", "Next month →")),
        ];
        for (day, label) in neighbours {
            if let Ok(day) = day {
                self.link(html, &[("store", store), ("month", &Month::of(day).to_string())], label);
                html.raw(" ");
            }
        }
        html.raw("</p><table class=\"cal\"><thead><tr>");
        column_heads(html, text::weekdays(lang));
        let days: Vec<(jiff::civil::Date, DayState)> =
            coverage.calendar.days().filter(|(date, _)| Month::of(*date) == month).collect();
        let mut open = false;
        for date in month.days() {
            let column = date.weekday().to_monday_zero_offset();
            if column == 0 || !open {
                html.raw(if open { "</tr><tr>" } else { "<tr>" });
                for _ in 0..if open { 0 } else { column } {
                    html.raw("<td></td>");
                }
                open = true;
            }
            let state = days.iter().find(|(day, _)| *day == date).map_or(DayState::NotExpected, |(_, state)| *state);
            let (sign, class) = text::state_sign(state);
            html.raw("<td><b>").text(date.day()).raw("</b> <span aria-hidden=\"true\" class=\"").text(class).raw("\">");
            html.text(sign).raw("</span><br><small>").text(text::state(lang, state)).raw("</small></td>");
        }
        html.raw("</tr></tbody></table>");
        for doubt in &coverage.doubts {
            html.raw("<p class=\"note\">").text(lang.pick("En duda: ", "In doubt: ")).text(doubt).raw("</p>");
        }
        html.raw("</section>");
    }

    fn runs(&self, html: &mut Html) {
        let lang = self.lang;
        html.raw("<section aria-labelledby=\"r\"><h2 id=\"r\">").text(lang.pick("Últimos lotes", "Last batches"));
        html.raw("</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"r\"><table><thead><tr>");
        let columns = [
            lang.pick("Cuándo", "When"),
            lang.pick("Lote", "Batch"),
            lang.pick("Filas", "Rows"),
            lang.pick("Resultado", "Outcome"),
        ];
        column_heads(html, columns);
        for run in &self.runs {
            html.raw("<tr>").element("td", text::moment(run.timings.settled_at));
            html.raw("<th scope=\"row\">").text(&run.batch).raw("</th><td class=\"n\">");
            html.text(text::count(lang, run.rows))
                .raw("</td>")
                .element("td", text::outcome(lang, &run.outcome))
                .raw("</tr>");
        }
        html.raw("</tbody></table></div></section>");
    }
}

fn pick_text(lang: Lang, es: String, en: String) -> String {
    match lang {
        Lang::Es => es,
        Lang::En => en,
    }
}

/// Ends the head row that was begun, and begins the body.
fn column_heads(html: &mut Html, columns: impl IntoIterator<Item = &'static str>) {
    for column in columns {
        html.raw("<th scope=\"col\">").text(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
}

fn states(days: &StateCounts) -> [(DayState, u64); 5] {
    [
        (DayState::Complete, days.complete),
        (DayState::Partial, days.partial),
        (DayState::Missing, days.missing),
        (DayState::Pending, days.pending),
        (DayState::NotExpected, days.not_expected),
    ]
}

fn empty_page(lang: Lang) -> Response {
    let mut html = Html::default();
    head(&mut html, lang);
    html.raw("<header><h1>Ribera</h1></header><main id=\"main\">");
    html.element("p", lang.pick("Todavía no se ha calculado la cobertura.", "No coverage has been computed yet."));
    html.raw("</main></body></html>");
    Response::ok(HTML, html.finish())
}

fn head(html: &mut Html, lang: Lang) {
    html.raw("<!DOCTYPE html><html lang=\"").text(lang.code()).raw("\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<title>Ribera</title><style>").raw(STYLE).raw("</style></head><body><a class=\"skip\" href=\"#main\">");
    html.text(lang.pick("Ir al contenido", "Skip to content")).raw("</a>");
}

/// `headers::CONTENT_SECURITY_POLICY` has its hash.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--g:#18794e;--y:#8a5a00;--r:#c62828;--n:#6b6b6b;--l:#8884}\
@media(prefers-color-scheme:dark){:root{--g:#4cc38a;--y:#f5b83d;--r:#ff8a80;--n:#a3a3a3}}\
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:75rem;padding:0 1rem 2rem}\
header{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:baseline;border-bottom:1px solid var(--l)}\
h1{margin:.6rem 0;font-size:1.5rem}h2{font-size:1.15rem;margin:1.4rem 0 .6rem}\
nav ul,.lights{display:flex;flex-wrap:wrap;gap:.3rem 1rem;list-style:none;margin:0;padding:0}\
.current a{font-weight:700;text-decoration:none;color:inherit}.lang{margin:0 0 0 auto}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.6rem;margin:0 0 1rem}\
dt{color:var(--n);font-size:.85rem}dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums}\
.scroll{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--l);vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}tbody th{font-weight:500}\
.cal{table-layout:fixed;width:100%;max-width:46rem}.cal td{overflow-wrap:anywhere}\
.green{color:var(--g)}.yellow{color:var(--y)}.red{color:var(--r)}.grey,.note{color:var(--n)}\
form{margin:0 0 .8rem}input,button{font:inherit;padding:.25rem .5rem;min-height:2.2rem}\
a:focus-visible,button:focus-visible,input:focus-visible,.scroll:focus-visible{outline:3px solid #3b82f6;outline-offset:2px}\
.warning{border-left:4px solid var(--r);padding:.4rem .8rem;font-weight:600}\
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem}";
