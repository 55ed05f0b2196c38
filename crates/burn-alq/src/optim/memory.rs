//! What the optimizer keeps of a weight from step to step.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use burn_core::tensor::{Device, Tensor, TensorData};
use multibit::fit::Moments;

use super::step::TensorState;
use crate::weight::MultiBit;

/// The memory of a weight, and the path that it was last at.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub path: String,
    pub memory: Memory,
}

/// AMSGrad's moments of one weight in both domains, and the full-precision values beside what is
/// stored.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// Moments of the weights, `[groups, len]`.
    pub weight: Moments<Tensor<2>>,
    /// Moments of the coordinates, `[groups, max_bits]`.
    pub alpha: Moments<Tensor<2>>,
    /// What the arithmetic of a step does not see.
    pub kept: Kept,
}

/// A [`Memory`] without the moments, which are in a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Steps taken.
    pub t: u32,
    /// The kept weight `w` of the STE phase, `[groups, len]`.
    pub latent: Option<Tensor<2>>,
    /// The coordinates before they were rounded to what is stored, `[groups, max_bits]`, while they
    /// are.
    pub master: Option<Tensor<2>>,
}

impl Memory {
    /// The memory after a step, with the moments that it left.
    pub(super) fn new(state: &TensorState, kept: Kept) -> Self {
        Self {
            weight: state.weight.clone(),
            alpha: state.alpha.clone(),
            kept,
        }
    }

    /// The same on a device, without autodiff.
    pub(super) fn moved_to(self, device: &Device) -> Self {
        if self.weight.m.device() == *device {
            return self;
        }
        let device = device.clone().without_autodiff();
        let to = |tensor: Tensor<2>| tensor.to_device(&device);
        Self {
            weight: self.weight.map(to),
            alpha: self.alpha.map(to),
            kept: Kept {
                t: self.kept.t,
                latent: self.kept.latent.map(to),
                master: self.kept.master.map(to),
            },
        }
    }

    /// Whether the shapes are those of a weight's state.
    pub(super) fn fit(&self, state: &MultiBit) -> bool {
        let codes = state.codes.val().dims();
        let coordinates = state.coordinates.val().dims();
        let all = |moments: &Moments<Tensor<2>>, more: &Option<Tensor<2>>, dims| {
            let moments = moments.as_ref().named().map(|(_, tensor)| tensor);
            moments
                .iter()
                .chain(&more.as_ref())
                .all(|tensor| tensor.dims() == dims)
        };
        let kept = &self.kept;
        all(&self.weight, &kept.latent, codes) && all(&self.alpha, &kept.master, coordinates)
    }

    /// Zero if all gradients so far and their squares were finite, else more. One tensor of one
    /// element, on the device.
    pub(super) fn probe(&self) -> Tensor<1> {
        // This must not be arithmetic: shader compilers may assume that numbers are finite.
        let spoiled = |tensor: &Tensor<2>| tensor.clone().is_finite().bool_not().float().sum();
        let of = |moments: &Moments<Tensor<2>>| spoiled(&moments.m) + spoiled(&moments.v_max);
        of(&self.weight) + of(&self.alpha)
    }

    /// Every tensor with its name in records.
    fn named(&self) -> Vec<(String, &Tensor<2>)> {
        let weight = self.weight.as_ref().named();
        let weight = weight.map(|(name, tensor)| (String::from(name), tensor));
        let alpha = self.alpha.as_ref().named();
        let alpha = alpha.map(|(name, tensor)| (format!("{name}_alpha"), tensor));
        let (latent, master) = (self.kept.latent.iter(), self.kept.master.iter());
        let latent = latent.map(|tensor| ("latent".into(), tensor));
        let master = master.map(|tensor| ("master".into(), tensor));
        let moments = weight.into_iter().chain(alpha);
        moments.chain(latent).chain(master).collect()
    }

    /// Name and data of every tensor, for records.
    pub(super) fn to_record(&self) -> Vec<(String, TensorData)> {
        let named = self.named().into_iter();
        named
            .map(|(name, tensor)| (name, tensor.to_data()))
            .collect()
    }

    /// What is in a record, or the name of what is missing.
    pub(super) fn from_record(
        t: u32,
        mut take: impl FnMut(&str) -> Option<TensorData>,
        device: &Device,
    ) -> Result<Self, String> {
        let mut tensor = |name: &str| {
            let data = take(name).filter(|data| data.rank() == 2 && data.dtype().is_float());
            data.map(|data| Tensor::<2>::from_data(data, device))
        };
        let mut moments = |suffix: &str| {
            let names = Moments::<()>::default().named();
            let [m, v, v_max] = names.map(|(name, ())| {
                let name = format!("{name}{suffix}");
                tensor(&name).ok_or(name)
            });
            Ok::<_, String>(Moments {
                m: m?,
                v: v?,
                v_max: v_max?,
            })
        };
        Ok(Self {
            weight: moments("")?,
            alpha: moments("_alpha")?,
            kept: Kept {
                t,
                latent: tensor("latent"),
                master: tensor("master"),
            },
        })
    }
}
