//! What must be true of every page.

use example_testing::Program;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

/// The report of a run's folder, as JSON.
pub fn report(program: &Program, folder: &str) -> Value {
    json(program, &format!("{folder}/report.json"))
}

/// A file of JSON.
pub fn json(program: &Program, file: &str) -> Value {
    serde_json::from_slice(&program.read(file)).unwrap()
}

/// The curves of a page.
pub fn curves(page: &str) -> &str {
    let start = page.find("<h2>Training</h2>").unwrap();
    &page[start..page.find("<h2>Bits</h2>").unwrap()]
}

/// Checks the page of a folder against its JSON.
pub fn check(program: &Program, folder: &str) {
    let page = program.text(&format!("{folder}/report.html"));
    let report = report(program, folder);
    needs_nothing_else(&page);
    let document = parse(&page);
    let figure = |name: &str| Figure::new(&document, name);

    let history = report["history"].as_array().unwrap();
    for (name, key) in [("loss", "loss"), ("accuracy", "metric"), ("bits", "bits")] {
        let figure = figure(name);
        let values = history.iter().filter_map(|point| {
            let value = point[key].as_f64()?;
            (key != "bits" || value > 0.0).then(|| (point["step"].as_u64().unwrap(), value))
        });
        let values: Vec<(u64, f64)> = values.collect();
        assert_eq!(figure.rows.len(), values.len(), "{name}");
        for (row, (step, value)) in figure.rows.iter().zip(&values) {
            assert_eq!(row[0], step.to_string());
            // Nine places at most are shown.
            shows(&row[2], *value, 1e-9);
        }
        // Axes are lines of two points.
        let nodes = figure.svg.descendants();
        let lines = nodes.filter_map(|node| node.attribute("points"));
        let points = lines.map(|points| points.split_whitespace().count()).max();
        assert_eq!(points, Some(values.len()), "{name}");
        for phase in ["float", "basis", "coordinate", "prune", "ste"] {
            let used = history.iter().any(|point| point["phase"] == phase);
            assert!(used && figure.has_text(phase), "no {phase} in {name}");
        }
    }

    let model = &report["model"];
    let layers = model["layers"].as_array().unwrap();
    let (bits, shares) = (figure("layer-bits"), figure("layer-group-bits"));
    assert_eq!([bits.rows.len(), shares.rows.len()], [layers.len(); 2]);
    for (row, layer) in bits.rows.iter().zip(layers) {
        assert_eq!(layer["path"], format!("{}.weight", row[0]));
        shows(&row[1], layer["average_bits"].as_f64().unwrap(), 0.0);
        assert!(bits.has_text(&row[0]) && bits.has_text(&row[1]), "{row:?}");
    }

    let counts = figure("group-bits").rows;
    let of_layers = |bits: usize| {
        let layers = layers.iter();
        let counts = layers.filter_map(|layer| layer["group_bits"][bits].as_u64());
        counts.sum::<u64>()
    };
    for (bits, row) in counts.iter().enumerate() {
        assert_eq!(row[1], of_layers(bits).to_string(), "groups of {bits} bits");
    }

    let maps = report["maps"].as_array().unwrap();
    assert_eq!(maps.len(), 2, "the convolutions");
    for map in maps {
        let path = map["path"].as_str().unwrap().trim_end_matches(".weight");
        let figure = figure(&format!("map-{path}"));
        let cells = map["bits"].as_array().unwrap().iter();
        let cells: Vec<f64> = cells
            .flat_map(|row| row.as_array().unwrap())
            .map(|bits| bits.as_f64().unwrap())
            .collect();
        let shown = figure.rows.iter().flat_map(|row| &row[1..]);
        let shown: Vec<f64> = shown.map(|bits| bits.parse().unwrap()).collect();
        assert_eq!(shown, cells, "{path}");
        let pruned = cells.iter().filter(|&&bits| bits == 0.0).count();
        // One of them is in the legend.
        assert_eq!(figure.rectangles(PRUNED), pruned + 1, "{path}");
    }

    let bytes = figure("bytes").rows;
    let bytes = bytes.iter().flat_map(|row| &row[1..]);
    let bytes: u64 = bytes.map(|part| part.parse::<u64>().unwrap()).sum();
    assert_eq!(bytes, report["file_bytes"].as_u64().unwrap());

    let timings = report["timings"].as_object().unwrap();
    assert_eq!(figure("timings").rows.len(), timings.len());
    let texts = document.descendants().filter_map(|node| node.text());
    let text: String = texts.collect();
    for key in ["command", "machine", "data"] {
        assert!(text.contains(report[key].as_str().unwrap()), "{key}");
    }
    assert!(text.contains("burn 0.22.1"));
}

/// Checks a number of a page: four digits are shown, down to a place.
pub fn shows(shown: &str, value: f64, place: f64) {
    let number: f64 = shown.parse().unwrap();
    let error = (number - value).abs();
    assert!(error <= 1e-3 * value.abs() + place, "{shown}, {value}");
}

/// The table beside a figure of a page, without its head, of a page that needs nothing else.
pub fn numbers(page: &str, figure: &str) -> Vec<Vec<String>> {
    needs_nothing_else(page);
    Figure::new(&parse(page), figure).rows
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).expect("well-formed")
}

/// The colour of groups without a basis.
const PRUNED: &str = "#EADFCF";

fn needs_nothing_else(page: &str) {
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    let page = page.to_lowercase();
    for reference in [
        "http:", "https:", "src=", "href", "<link", "<script", "url(", "@import", "<image", "<base",
    ] {
        assert!(!page.contains(reference), "{reference} in the page");
    }
}

struct Figure<'a, 'input> {
    svg: Node<'a, 'input>,
    /// Of the table beside the picture, without its head.
    rows: Vec<Vec<String>>,
}

impl<'a, 'input> Figure<'a, 'input> {
    fn new(document: &'a Document<'input>, name: &str) -> Self {
        let find = |node: Node<'a, 'input>, tag: &str| {
            let mut nodes = node.descendants();
            nodes.find(|node| node.has_tag_name(tag)).unwrap()
        };
        let figure = document
            .descendants()
            .find(|node| node.has_tag_name("figure") && node.attribute("id") == Some(name));
        let figure = figure.unwrap_or_else(|| panic!("there is a figure {name}"));
        let table = find(figure, "table").children().filter(Node::is_element);
        let cells = |row: Node<'a, 'input>| {
            let cells = row.children().filter(Node::is_element);
            cells
                .map(|cell| cell.text().unwrap_or_default().to_string())
                .collect()
        };
        Self {
            svg: find(figure, "svg"),
            rows: table.skip(1).map(cells).collect(),
        }
    }

    fn has_text(&self, text: &str) -> bool {
        let mut nodes = self.svg.descendants();
        nodes.any(|node| node.has_tag_name("text") && node.text().map(str::trim) == Some(text))
    }

    fn rectangles(&self, color: &str) -> usize {
        let nodes = self.svg.descendants();
        nodes
            .filter(|node| node.has_tag_name("rect") && node.attribute("fill") == Some(color))
            .count()
    }
}
