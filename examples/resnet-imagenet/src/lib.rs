//! ResNet18 and ResNet34 as torchvision's, in multi-bit layers; image folders; pretrained weights.

pub mod folder;
pub mod model;
pub mod pretrained;
