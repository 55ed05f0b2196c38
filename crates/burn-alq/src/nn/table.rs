//! The layers that hold a weight, ours and Burn's: the one table of what is to be known of them. Our layers
//! in the place of Burn's are named as those are, and the table cannot tell them apart.

use crate::weight::Layout;

/// What is to be known of a layer with a weight of rank 2 or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Layer {
    /// Our type with a name of its own, where there is one.
    pub ours: Option<&'static str>,
    /// Burn's type.
    pub burn: &'static str,
    /// What the axes of its weight mean.
    pub layout: Layout,
    /// The axis of its weight that the outputs are on.
    pub output_axis: usize,
}

const fn layer(
    ours: Option<&'static str>,
    burn: &'static str,
    layout: Layout,
    output_axis: usize,
) -> Layer {
    Layer {
        ours,
        burn,
        layout,
        output_axis,
    }
}

/// All of them.
const LAYERS: &[Layer] = &[
    layer(Some("MultiBitLinear"), "Linear", Layout::Direct, 1),
    layer(Some("MultiBitConv1d"), "Conv1d", Layout::Direct, 0),
    layer(Some("MultiBitConv2d"), "Conv2d", Layout::Direct, 0),
    layer(None, "Conv3d", Layout::Direct, 0),
    layer(None, "DeformConv2d", Layout::Direct, 0),
    layer(None, "ConvTranspose1d", Layout::Transposed, 1),
    layer(
        Some("MultiBitConvTranspose2d"),
        "ConvTranspose2d",
        Layout::Transposed,
        1,
    ),
    layer(None, "ConvTranspose3d", Layout::Transposed, 1),
    layer(
        Some("MultiBitEmbedding"),
        "Embedding",
        Layout::Transposed,
        0,
    ),
];

/// The line of a type of ours.
///
/// # Panics
/// If the table has none.
pub(super) fn ours(name: &str) -> &'static Layer {
    let mut layers = LAYERS.iter();
    let layer = layers.find(|layer| layer.ours == Some(name));
    layer.unwrap_or_else(|| panic!("{name} is not in the table of layers"))
}

/// The layer of a container's type, as a walk names it: `Struct:Linear`. None for any other module,
/// whose weights are taken as those of `Linear` or `Conv2d`, by their rank.
pub(crate) fn of(container: &str) -> Option<&'static Layer> {
    let name = container.strip_prefix("Struct:")?;
    let mut layers = LAYERS.iter();
    layers.find(|layer| layer.ours == Some(name) || layer.burn == name)
}

/// What the axes of a weight in a container mean.
#[cfg(feature = "train")]
pub(crate) fn layout_of(container: &str) -> Layout {
    of(container).map_or(Layout::Direct, |layer| layer.layout)
}

/// The output axis that a layer of ours, by its own name, expects of its weight.
pub(crate) fn packed_axis_of(container: &str) -> Option<usize> {
    let layer = of(container)?;
    let name = container.strip_prefix("Struct:");
    (layer.ours == name).then_some(layer.output_axis)
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use std::path::Path;

    use super::*;

    /// The structures in a folder of sources that hold a weight of rank 2 or more.
    fn weighted(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(weighted(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut name = "";
                for line in text.lines() {
                    if let Some(rest) = line.strip_prefix("pub struct ") {
                        let end = rest.find(|c: char| !c.is_alphanumeric());
                        name = &rest[..end.unwrap_or(rest.len())];
                    }
                    let weight = line.trim_start().strip_prefix("pub weight: Param<Tensor<");
                    if weight.is_some_and(|rank| !rank.starts_with('1')) {
                        found.push(name.to_string());
                    }
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_layer_of_ours_is_listed() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nn");
        let mut listed: Vec<&str> = LAYERS.iter().filter_map(|layer| layer.ours).collect();
        listed.sort_unstable();
        let is_multi_bit = |name: &String| name.starts_with("MultiBit");
        let (ours, burns): (Vec<_>, Vec<_>) = weighted(&here).into_iter().partition(is_multi_bit);
        assert_eq!(ours, listed);
        for name in burns {
            assert!(LAYERS.iter().any(|layer| layer.burn == name), "{name}");
        }
    }

    /// The sources are those of the Burn that this is compiled with.
    #[cfg(feature = "train")]
    #[test]
    fn every_layer_of_burn_is_listed() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = std::process::Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut packages = metadata["packages"].as_array().unwrap().iter();
        let burn = packages.find(|package| package["name"] == "burn-nn");
        let manifest = Path::new(burn.unwrap()["manifest_path"].as_str().unwrap());
        let mut listed: Vec<&str> = LAYERS.iter().map(|layer| layer.burn).collect();
        listed.sort_unstable();
        assert_eq!(weighted(&manifest.with_file_name("src")), listed);
    }

    #[test]
    fn only_layers_with_names_of_their_own_refuse_other_axes() {
        for layer in LAYERS {
            let container = alloc::format!("Struct:{}", layer.burn);
            assert_eq!(packed_axis_of(&container), None);
            if let Some(ours) = layer.ours {
                let container = alloc::format!("Struct:{ours}");
                assert_eq!(packed_axis_of(&container), Some(layer.output_axis));
            }
        }
        assert_eq!(packed_axis_of("Struct:Net"), None);
    }
}
