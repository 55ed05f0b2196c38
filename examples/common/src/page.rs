//! A report as one page that needs nothing else: no script, no font, no picture from outside.

use askama::Template;

use crate::origin::Origin;
use crate::plot::{self, Figure};
use crate::report::Report;

/// What `templates/page.html` lays out.
#[derive(Template)]
#[template(path = "page.html")]
pub struct Page<'a> {
    title: String,
    about: String,
    /// The run that it shows, if it is one's page.
    run: Option<&'a Report>,
    /// Figures under their heads.
    pub sections: Vec<(&'static str, Vec<Figure>)>,
    /// A table with its name; the first row is the head.
    table: Option<(&'static str, Vec<Vec<String>>)>,
    /// What one needs to make the numbers again.
    origin: &'a Origin,
    colors: String,
}

impl<'a> Page<'a> {
    pub fn new(title: String, about: String, origin: &'a Origin) -> Self {
        Self {
            title,
            about,
            run: None,
            sections: Vec::new(),
            table: None,
            origin,
            colors: plot::style(),
        }
    }

    /// Adds figures under a head.
    pub fn section(mut self, name: &'static str, figures: impl Into<Vec<Figure>>) -> Self {
        self.sections.push((name, figures.into()));
        self
    }

    /// Sets the table after the figures.
    pub fn table<const N: usize>(mut self, name: &'static str, rows: Vec<[String; N]>) -> Self {
        self.table = Some((name, rows.into_iter().map(Vec::from).collect()));
        self
    }

    /// The page of a run.
    pub fn of_run(report: &'a Report) -> Self {
        let (data, seed) = (&report.origin.data, report.origin.seed);
        let about = format!("Adaptive loss-aware quantization on {data}, seed {seed}");
        let title = format!("{}, preset {}", report.network, report.preset);
        let mut page = Self::new(title, about, &report.origin);
        page.run = Some(report);
        let history = &report.history;
        if !history.is_empty() {
            page = page.section("Training", plot::training(history));
        }
        let mut timings: Vec<_> = report.timings.iter().collect();
        timings.sort_by_key(|(name, _)| history.iter().position(|p| p.phase.to_string() == **name));
        let timings = plot::timings(timings);
        let Some(model) = &report.model else {
            return page.section("Time", [timings]);
        };
        page = page.section("Bits", plot::bitwidths(model));
        let widest = plot::widest(model);
        let maps = report.maps.iter();
        let maps: Vec<Figure> = maps.map(|map| plot::kernel_map(map, widest)).collect();
        if !maps.is_empty() {
            page = page.section("Kernels", maps);
        }
        let bytes = plot::file_bytes(model, report.file_bytes);
        let page = page.section("Bytes and time", [bytes, timings]);
        match report.references.is_empty() {
            true => page,
            false => page.table("Published", report.published()),
        }
    }
}
