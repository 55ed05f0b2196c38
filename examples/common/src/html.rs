//! A report as one page that needs nothing else: no script, no font, no picture from outside.

use std::fmt::Write as _;

use burn_alq::report::ModelReport;
use burn_alq::report::plot::{self, Figure};

use crate::origin::Origin;
use crate::report::Report;

const STYLE: &str = include_str!("report.css");

/// The page of a run.
pub fn page(report: &Report) -> String {
    let about = format!(
        "Adaptive loss-aware quantization on {}, seed {}",
        report.origin.data, report.origin.seed
    );
    let mut body = String::new();
    if let Some(model) = &report.model {
        body += &facts(report, model);
    }
    for (name, figures) in sections(report) {
        body += &section(name, &figures);
    }
    if let Some(model) = &report.model {
        let _ = write!(body, "<h2>Layers</h2>\n{}", table(&layers(model)));
    }
    body += &origin(&report.origin, &settings(report));
    let title = format!("{}, preset {}", report.network, report.preset);
    document(&title, &about, &body)
}

/// A page with its style.
pub fn document(title: &str, about: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"about\">{}</p>\n{body}</body>\n</html>\n",
        plot::style(),
        escape(about),
    )
}

/// Figures under a head.
pub fn section(name: &str, figures: &[Figure]) -> String {
    let mut text = format!("<h2>{name}</h2>\n<div class=\"figures\">\n");
    for figure in figures {
        text += &figure_html(figure);
    }
    text + "</div>\n"
}

/// The figures of a report, under the heads of the page.
pub fn sections(report: &Report) -> Vec<(&'static str, Vec<Figure>)> {
    let history = &report.history;
    let mut sections = Vec::new();
    if !history.is_empty() {
        let curves = [plot::accuracy, plot::bits, plot::loss].map(|curve| curve(history));
        sections.push(("Training", curves.into()));
    }
    let mut timings: Vec<_> = report.timings.iter().collect();
    timings.sort_by_key(|(name, _)| {
        let first = |phase: &str| history.iter().position(|p| p.phase.to_string() == phase);
        first(name)
    });
    let timings = timings
        .into_iter()
        .map(|(name, timing)| (name.as_str(), timing));
    let timings = plot::timings(timings);
    let Some(model) = &report.model else {
        sections.push(("Time", vec![timings]));
        return sections;
    };
    let bits = [plot::layer_bits, plot::group_bits, plot::layer_group_bits];
    sections.push(("Bits", bits.map(|figure| figure(model)).into()));
    let widest = plot::widest(model);
    let maps = report.maps.iter();
    let maps: Vec<Figure> = maps.map(|map| plot::kernel_map(map, widest)).collect();
    if !maps.is_empty() {
        sections.push(("Kernels", maps));
    }
    let bytes = plot::file_bytes(model, report.file_bytes);
    sections.push(("Bytes and time", vec![bytes, timings]));
    sections
}

/// What one wants to know first.
fn facts(report: &Report, model: &ModelReport) -> String {
    let accuracies = &report.accuracies;
    let smaller = report.float_bytes as f64 / report.file_bytes.max(1) as f64;
    let facts = [
        (
            "Accuracy",
            format!("{:.2} %", accuracies.packed),
            format!(
                "float {:.2} %, {} test images",
                accuracies.float, accuracies.images
            ),
        ),
        (
            "Bits per weight",
            format!("{:.3}", model.paper_bits),
            format!("{:.3} with coordinates and widths", model.effective_bits),
        ),
        (
            "File",
            format!("{} B", report.file_bytes),
            format!("{smaller:.0} times smaller than f32"),
        ),
        (
            "Time",
            format!("{:.0} s", report.seconds),
            format!("{} weights", model.weights),
        ),
    ];
    let mut text = String::from("<dl class=\"facts\">\n");
    for (name, value, more) in facts {
        let _ = writeln!(
            text,
            "<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>"
        );
    }
    text + "</dl>\n"
}

fn figure_html(figure: &Figure) -> String {
    format!(
        "<figure id=\"{}\">\n<figcaption><b>{title}</b><span>{}</span></figcaption>\n\
         <div role=\"img\" aria-label=\"{title}\">\n{}</div>\n\
         <details><summary>Numbers</summary>\n{}</details>\n</figure>\n",
        escape(&figure.name),
        escape(&figure.caption),
        figure.svg,
        table(&figure.numbers),
        title = escape(&figure.title),
    )
}

/// A table that scrolls by itself; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"scroll\"><table>\n");
    for (index, row) in rows.iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        text += "<tr>";
        for value in row {
            let _ = write!(text, "<{cell}>{}</{cell}>", escape(value));
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

fn layers(model: &ModelReport) -> Vec<Vec<String>> {
    let head = [
        "weight", "shape", "grouping", "groups", "bits", "pruned", "bytes", "error",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(model.layers.iter().map(|layer| {
        let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
        vec![
            layer.path.clone(),
            shape.join("×"),
            layer.grouping.clone(),
            layer.groups.to_string(),
            format!("{:.4}", layer.average_bits),
            format!("{:.1} %", 100.0 * layer.empty_groups),
            layer.bytes.to_string(),
            layer
                .relative_error
                .map_or("–".into(), |error| format!("{error:.3}")),
        ]
    }));
    rows
}

/// Of a run, beside its origin.
fn settings(report: &Report) -> [(&'static str, String); 3] {
    let memory = report.peak_memory_bytes;
    [
        (
            "batch size",
            format!("{}, {} shards", report.batch_size, report.shards),
        ),
        (
            "activations",
            match report.act_bits {
                0 => "ReLU in f32".into(),
                bits => format!("{bits} bits"),
            },
        ),
        (
            "peak memory",
            memory.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20)),
        ),
    ]
}

/// How to make a page's numbers again, and what else there is to say of them.
pub fn origin(origin: &Origin, more: &[(&str, String)]) -> String {
    let versions = origin.versions.iter();
    let versions: Vec<String> = versions.map(|(name, v)| format!("{name} {v}")).collect();
    let rows = [
        ("command", origin.command.clone()),
        ("seed", origin.seed.to_string()),
        ("versions", versions.join(", ")),
        ("machine", origin.machine.clone()),
        ("data", origin.data.clone()),
    ];
    let mut text = String::from("<h2>Origin</h2>\n<dl class=\"origin\">\n");
    for (name, value) in rows.iter().chain(more) {
        let value = match *name {
            "command" => format!("<code>{}</code>", escape(value)),
            _ => escape(value),
        };
        let _ = writeln!(text, "<dt>{name}</dt><dd>{value}</dd>");
    }
    text + "</dl>\n"
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            _ => escaped.push(c),
        }
    }
    escaped
}
