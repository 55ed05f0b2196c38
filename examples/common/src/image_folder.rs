//! ImageNet-style folders: `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG` (or `test`), decoded as they are
//! needed; small images at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn_alq::file::{Input, Order};
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, resize};
use image::{ImageReader, RgbImage};
use rayon::prelude::*;

use crate::bytes::ByteImages;
use crate::cifar::{CLASSES, NORM};
use crate::data::{DATA_CLASSES, Random, epoch_order, fingerprint, input, name, too_few};
use crate::{Batch, Config, Dataset, Failure, Images, at};

/// torchvision's mean and deviation of each channel.
const IMAGENET_NORM: [[f32; 2]; 3] = [[0.485, 0.229], [0.456, 0.224], [0.406, 0.225]];

const NO_CLASSES: &str = "no class folders in it";

/// Endings of image files.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// How a folder is read.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Height and width of the network's input.
    pub size: usize,
    /// Use at most so many images of each split.
    pub limit: Option<u32>,
    /// Leave images out that cannot be decoded.
    pub skip_corrupt: bool,
    /// The network's outputs.
    pub outputs: usize,
}

/// Some images of a folder, decoded on all cores when they are asked for.
#[derive(Debug)]
pub struct FolderImages {
    files: Vec<(PathBuf, u32)>,
    options: Options,
    skipped: Mutex<BTreeSet<String>>,
}

/// The data set in a folder. A tenth of the training images validates, at most 10,000.
///
/// # Errors
/// If a folder is missing or empty, the classes do not fit each other, or there are more than the
/// network has outputs.
pub fn dataset(folder: &Path, options: Options) -> Result<Dataset, Failure> {
    let train = folder.join("train");
    let classes = classes(&train, options.outputs)?;
    let mut train = files(&train, &classes)?;
    let test = files(&held_out(folder), &classes)?;
    limit(&mut train, options.limit);
    let count = train.len();
    let valid = (count / 10).min(10_000);
    if valid == 0 {
        return Err(too_few(folder, count));
    }
    let valid = train.split_off(count - valid);
    let [train, valid] = [train, valid].map(|files| FolderImages::new(files, options));
    let test = FolderImages::limited(test, options);
    let names = [&train, &valid, &test]
        .into_iter()
        .flat_map(|split| &split.files);
    let names = names.map(|(file, _)| file.strip_prefix(folder).unwrap_or(file));
    let names: Vec<u8> = names
        .flat_map(|name| name.to_string_lossy().into_owned().into_bytes())
        .chain(options.size.to_le_bytes())
        .collect();
    let splits: [Arc<dyn Images>; 3] = [Arc::new(train), Arc::new(valid), Arc::new(test)];
    let more = format!(", {} classes", classes.len());
    let mut data = Dataset::new(splits, &name(folder), &more, fingerprint(names.iter()));
    data.classes = Some(names_of(&classes));
    data.labels = classes;
    Ok(data)
}

/// Differs for other classes.
fn names_of(classes: &[String]) -> u64 {
    fingerprint(classes.join("/").as_bytes().iter())
}

/// The test images of a folder, those in `val`, for a network of a configuration.
///
/// # Errors
/// As [`dataset`], and if the network was trained on other classes.
pub fn test(
    folder: &Path,
    options: Options,
    config: &Config,
) -> Result<(String, Arc<dyn Images>), Failure> {
    let (named, classes) = known_classes(folder, options.outputs)?;
    if let Some(known) = config.get(DATA_CLASSES)
        && *known != format!("{:016x}", names_of(&classes))
    {
        let error = "the model was trained on other classes; evaluate it on a folder with a folder \
                     of the same name for each of them";
        return Err(at(&named, error));
    }
    let images = FolderImages::limited(files(&held_out(folder), &classes)?, options);
    Ok((name(folder), Arc::new(images)))
}

/// The images of a folder decoded, training images first, `side` pixels wide and high, in colour and mixed, and
/// the names of their classes.
///
/// # Errors
/// As [`dataset`], and if an image cannot be decoded or has another size.
pub fn small(folder: &Path, side: usize) -> Result<(Vec<String>, [ByteImages; 2]), Failure> {
    let train = folder.join("train");
    let classes = classes(&train, CLASSES.len())?;
    let train = decoded(files(&train, &classes)?, side)?;
    let test = decoded(files(&held_out(folder), &classes)?, side)?;
    Ok((classes, [train, test]))
}

/// The test images of the same.
///
/// # Errors
/// As [`small`].
pub fn small_test(folder: &Path, side: usize) -> Result<ByteImages, Failure> {
    let (_, classes) = known_classes(folder, CLASSES.len())?;
    decoded(files(&held_out(folder), &classes)?, side)
}

/// Files in memory, in an order that mixes their classes.
fn decoded(mut files: Vec<(PathBuf, u32)>, side: usize) -> Result<ByteImages, Failure> {
    limit(&mut files, None);
    let pixels = files.par_iter().map(|(file, _)| {
        let image = decode(file).map_err(|error| at(file, format!("corrupt image: {error}")))?;
        let (width, height) = image.dimensions();
        if [width, height].map(|size| size as usize) != [side; 2] {
            let error =
                format!("{width}x{height} pixels, not {side}x{side}; scale the images first");
            return Err(at(file, error));
        }
        let channel = |channel| image.pixels().map(move |pixel| pixel.0[channel]);
        Ok((0..3).flat_map(channel).collect())
    });
    let pixels: Vec<Vec<u8>> = pixels.collect::<Result<_, Failure>>()?;
    let mut images = ByteImages::new([3, side, side], NORM.into());
    images.pixels = pixels.concat();
    images.labels = files.iter().map(|(_, label)| *label as u8).collect();
    Ok(images)
}

/// The folder of the test images.
fn held_out(folder: &Path) -> PathBuf {
    let test = folder.join("test");
    if test.is_dir() {
        return test;
    }
    folder.join("val")
}

/// The classes of a folder that may have test images alone, and where they were read: not all classes need
/// test images.
fn known_classes(folder: &Path, outputs: usize) -> Result<(PathBuf, Vec<String>), Failure> {
    let train = folder.join("train");
    let named = if train.is_dir() {
        train
    } else {
        held_out(folder)
    };
    let classes = classes(&named, outputs)?;
    Ok((named, classes))
}

/// All images in a folder and in folders below it, without labels; folders behind links are left out.
///
/// # Errors
/// If a folder cannot be read, or there is no image.
pub fn unlabelled(folder: &Path, options: Options) -> Result<(String, Arc<dyn Images>), Failure> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in sorted(&folder).map_err(|error| at(&folder, error))? {
            if is_image(&path) {
                files.push((path, 0));
            } else if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    if files.is_empty() {
        let error = "no images (.jpg, .jpeg, .png) in it or in folders below it";
        return Err(at(folder, error));
    }
    Ok((
        name(folder),
        Arc::new(FolderImages::limited(files, options)),
    ))
}

/// The names of the folders in a folder, sorted: their places are the classes, as in torchvision.
fn classes(folder: &Path, outputs: usize) -> Result<Vec<String>, Failure> {
    let classes: Vec<String> = entries(folder)?
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|path| name(&path))
        .collect();
    match classes.len() {
        0 => Err(at(folder, NO_CLASSES)),
        count if count > outputs => Err(at(
            folder,
            format!(
                "{count} classes, but the network has {outputs} outputs (--classes, where there is that flag)"
            ),
        )),
        _ => Ok(classes),
    }
}

/// All images of the classes, in the order of class and name.
fn files(folder: &Path, classes: &[String]) -> Result<Vec<(PathBuf, u32)>, Failure> {
    let mut files = Vec::new();
    for class in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let label = classes.binary_search(&name(&class));
        let label = label.map_err(|_| at(&class, "the training images have no such class"))?;
        let before = files.len();
        let images = entries(&class)?.into_iter().filter(|path| is_image(path));
        files.extend(images.map(|path| (path, label as u32)));
        if files.len() == before {
            let error = "a class without images (.jpg, .jpeg, .png); fill the folder or remove it";
            return Err(at(&class, error));
        }
    }
    if files.is_empty() {
        return Err(at(folder, NO_CLASSES));
    }
    Ok(files)
}

/// Whether a file is one by its name.
fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let mut known = ENDINGS.iter();
    known.any(|known| ending.as_deref() == Some(known.as_ref())) && !path.is_dir()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    sorted(folder).map_err(|error| {
        let error =
            format!("{error}; images are expected in train/CLASS and test/CLASS or val/CLASS");
        at(folder, error)
    })
}

/// What is in a folder, by name.
fn sorted(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// Mixes the classes, the same way each time, and keeps the first.
fn limit(files: &mut Vec<(PathBuf, u32)>, limit: Option<u32>) {
    let order = epoch_order(files.len(), 0, 0);
    let kept = order
        .into_iter()
        .take(limit.map_or(files.len(), |limit| limit as usize));
    *files = kept.map(|index| files[index as usize].clone()).collect();
}

impl FolderImages {
    /// The first of the mixed files, if there is a limit.
    fn limited(mut files: Vec<(PathBuf, u32)>, options: Options) -> Self {
        if options.limit.is_some() {
            limit(&mut files, options.limit);
        }
        Self::new(files, options)
    }

    fn new(files: Vec<(PathBuf, u32)>, options: Options) -> Self {
        Self {
            files,
            options,
            skipped: Mutex::new(BTreeSet::new()),
        }
    }

    /// A normalized image `[3, size, size]`; none for one that is left out.
    fn read(&self, index: u32, augment: Option<u64>) -> Result<Option<Vec<f32>>, Failure> {
        let (file, _) = &self.files[index as usize];
        let image = match decode(file) {
            Ok(image) => image,
            Err(_) if self.options.skip_corrupt => {
                let mut skipped = self.skipped.lock().expect("no thread panics with it");
                skipped.insert(file.display().to_string());
                return Ok(None);
            }
            Err(error) => {
                let error = format!(
                    "corrupt image ({error}); repair it, or leave such images out with \
                     --skip-corrupt"
                );
                return Err(at(file, error));
            }
        };
        let size = self.options.size;
        let image = match augment {
            Some(seed) => varied(&image, size, Random::new(seed, u64::from(index))),
            None => centered(&image, size),
        };
        Ok(Some(normalized(&image)))
    }
}

impl Images for FolderImages {
    fn count(&self) -> usize {
        self.files.len()
    }

    fn input(&self) -> Input {
        let size = self.options.size;
        input([3, size, size], &IMAGENET_NORM, Order::ChannelsLast)
    }

    fn batch(&self, indices: &[u32], augment: Option<u64>) -> Result<Batch, Failure> {
        let images: Result<Vec<_>, Failure> = indices
            .par_iter()
            .map(|&index| self.read(index, augment))
            .collect();
        let mut batch = Batch {
            pixels: Vec::new(),
            labels: Vec::new(),
            shape: [3, self.options.size, self.options.size],
        };
        for (image, &index) in images?.into_iter().zip(indices) {
            if let Some(image) = image {
                batch.pixels.extend(image);
                batch.labels.push(self.files[index as usize].1 as i32);
            }
        }
        if batch.labels.is_empty() {
            let (file, _) = &self.files[indices[0] as usize];
            let file = file.display();
            return Err(format!("{file} and all other images of its batch are corrupt").into());
        }
        Ok(batch)
    }

    fn skipped(&self) -> Vec<String> {
        let skipped = self.skipped.lock().expect("no thread panics with it");
        skipped.iter().cloned().collect()
    }
}

fn decode(file: &Path) -> Result<RgbImage, Failure> {
    // ImageNet has PNG files that are called JPEG.
    let reader = ImageReader::open(file)?.with_guessed_format()?;
    Ok(reader.decode()?.into_rgb8())
}

/// torchvision's evaluation: the shorter side to 256/224 of the size, then the centre.
fn centered(image: &RgbImage, size: usize) -> RgbImage {
    let short = (size * 256 / 224) as u32;
    let (width, height) = image.dimensions();
    let scaled = |side: u32| {
        let side = u64::from(side) * u64::from(short) / u64::from(width.min(height));
        (side as u32).max(short)
    };
    let image = resize(image, scaled(width), scaled(height), FilterType::Triangle);
    let size = size as u32;
    let (left, top) = ((image.width() - size) / 2, (image.height() - size) / 2);
    crop_imm(&image, left, top, size, size).to_image()
}

/// torchvision's training: a random part of 8 % to 100 % of the area, at most a third from square,
/// mirrored half of the time.
fn varied(image: &RgbImage, size: usize, mut random: Random) -> RgbImage {
    let (width, height) = image.dimensions();
    let area = f64::from(width) * f64::from(height);
    let part = (0..10).find_map(|_| {
        let area = area * (0.08 + 0.92 * random.unit());
        let (low, high) = ((3.0f64 / 4.0).ln(), (4.0f64 / 3.0).ln());
        let ratio = (low + (high - low) * random.unit()).exp();
        let w = (area * ratio).sqrt().round() as u32;
        let h = (area / ratio).sqrt().round() as u32;
        ((1..=width).contains(&w) && (1..=height).contains(&h)).then(|| {
            let left = random.below((width - w + 1) as usize) as u32;
            let top = random.below((height - h + 1) as usize) as u32;
            (left, top, w, h)
        })
    });
    let mirrored = random.below(2) == 1;
    let mut image = match part {
        Some((left, top, w, h)) => {
            let part = crop_imm(image, left, top, w, h).to_image();
            resize(&part, size as u32, size as u32, FilterType::Triangle)
        }
        // Too long for such a part.
        None => centered(image, size),
    };
    if mirrored {
        flip_horizontal_in_place(&mut image);
    }
    image
}

fn normalized(image: &RgbImage) -> Vec<f32> {
    let bytes = image.as_raw();
    let channels = IMAGENET_NORM.iter().enumerate();
    channels
        .flat_map(|(channel, [mean, deviation])| {
            let values = bytes.iter().skip(channel).step_by(3);
            values.map(move |&byte| (f32::from(byte) / 255.0 - mean) / deviation)
        })
        .collect()
}
