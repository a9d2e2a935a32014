"""The claims of the paper (arXiv 2502.15798), and a few beyond it that users ask about."""

from __future__ import annotations

from maxsup.lab.report.claims.claim import Claim, Topic
from maxsup.lab.report.claims.makers import (
    CE,
    ENHANCEMENT,
    ENHANCEMENT_MAX,
    LOGIT_PENALTY,
    LS,
    OLS,
    OURS,
    REGULARIZATION,
    ZIPF,
    ablation,
    accuracy,
    confidence,
    features,
    neighbours,
    noise,
    schedule,
    segmentation,
    transfer,
)
from maxsup.lab.report.claims.settings import CONSTANT, LONG_TAILED, PLAIN, WITHOUT_NOISE

_EVERYWHERE = "Tables 1, 4, 5 and 7; §5.1.2"

ACCURACY = Topic(
    "Accuracy",
    (
        accuracy(OURS, CE, "MaxSup classifies better than cross-entropy.", _EVERYWHERE),
        accuracy(OURS, LS, "MaxSup classifies better than label smoothing.", _EVERYWHERE),
        accuracy(OURS, OLS, "MaxSup classifies better than Online Label Smoothing."),
        accuracy(OURS, ZIPF, "MaxSup classifies better than Zipf Label Smoothing."),
        accuracy(LS, CE, "Label smoothing classifies better than cross-entropy.", "Tables 1, 4, 5 and 7; §1"),
    ),
)
VARIATION = Topic(
    "Variation within classes",
    (
        *features(
            "d_within", LS, CE, "lower", "Label smoothing draws the features of a class together", "Table 2; §4.1"
        ),
        *features("d_within", OURS, CE, "lower", "MaxSup too draws the features of a class together", "Table 2; §4.1"),
        *features(
            "d_within",
            OURS,
            LS,
            "higher",
            "MaxSup keeps more variation within classes than label smoothing",
            "Table 2; §4.1",
        ),
    ),
    "d_within is the mean cosine distance within a class. The paper's text has MaxSup closest to cross-entropy of all "
    "methods; its own validation column has the logit penalty closer (0.3144 against 0.2998).",
)
SEPARABILITY = Topic(
    "Separability of classes",
    (
        *features(
            "r_squared", OURS, LS, "higher", "MaxSup has a higher R² than label smoothing", "Table 2; §1, §4 and §6"
        ),
        *features("r_squared", OURS, CE, "higher", "MaxSup has a higher R² than cross-entropy", "Table 2; §4 and §6"),
    ),
    "R² is the share of the cosine distance that lies between classes. The paper reads a higher R² as better separated "
    "classes and says that MaxSup improves it. By its own Table 2 the logit penalty and OLS have a higher R² than "
    "MaxSup, and so has Zipf Label Smoothing on training images.",
)
TRANSFER = Topic(
    "Transfer",
    (
        transfer(LS, CE, "lower", "Frozen features of label smoothing give a worse linear probe than cross-entropy's."),
        transfer(OURS, LS, "higher", "Frozen features of MaxSup give a better linear probe than label smoothing's."),
        transfer(
            LOGIT_PENALTY,
            CE,
            "lower",
            "Frozen features of the logit penalty give a worse linear probe than cross-entropy's.",
        ),
        neighbours(OURS, LS, "Frozen features of MaxSup give better nearest neighbours than label smoothing's."),
    ),
    "That MaxSup transfers nearly as well as cross-entropy (81.02 against 81.43 in Table 3) says that there is no "
    "difference, which a test of a difference cannot confirm.",
)
OVERCONFIDENCE = Topic(
    "Confidence in errors",
    (
        confidence(
            OURS, CE, "lower", "MaxSup is less sure of its wrong predictions than cross-entropy.", "§3.2, Eqs. 7 and 9"
        ),
        confidence(
            OURS,
            LS,
            "lower",
            "MaxSup is less sure of its wrong predictions than label smoothing.",
            "§3.1, §3.2 and §6",
        ),
        confidence(
            LS,
            CE,
            "higher",
            "Label smoothing makes a network surer of its wrong predictions than cross-entropy.",
            "abstract, §1 and §3.1",
        ),
    ),
    "The paper argues that label smoothing's error-enhancement part widens the gap between a wrong top-1 logit and the "
    "true one and so makes errors overconfident, and that MaxSup lowers the top-1 logit whether it is right or wrong. "
    "It means overconfidence of the top-1 prediction and not calibration (§1), prints no number of it, and does not "
    "say surer than what; the last claim reads it as surer than cross-entropy. On calibration it claims nothing.",
)
PARTS = Topic(
    "The parts of label smoothing",
    (
        ablation(REGULARIZATION, CE, "higher", "The regularisation part alone classifies better than cross-entropy."),
        ablation(ENHANCEMENT, CE, "lower", "The error-enhancement part alone classifies worse than cross-entropy."),
        ablation(
            ENHANCEMENT_MAX,
            CE,
            "lower",
            "Error enhancement as α (z_gt − z_max) alone classifies worse than cross-entropy.",
        ),
        ablation(REGULARIZATION, LS, "higher", "The regularisation part alone classifies better than label smoothing."),
        ablation(OURS, REGULARIZATION, "higher", "MaxSup classifies better than the regularisation part alone."),
        ablation(OURS, LS, "higher", "MaxSup classifies better than label smoothing at constant α.", setting=CONSTANT),
    ),
    "The paper's numbers are of one run each, at α = 0.1; the parts are normalised as in its Table 1.",
)
SCHEDULE = Topic(
    "The schedule of α",
    (
        schedule(LS, None, "Label smoothing classifies better with α from 0.1 to 0.2 than with α = 0.1.", 0.0025),
        schedule(OURS, None, "MaxSup classifies better with α from 0.1 to 0.2 than with α = 0.1.", 0.0046),
        schedule(OURS, LS, "MaxSup gains more by the schedule than label smoothing.", 0.0021),
    ),
    "Differences between two comparisons whose recipes differ in α alone, paired by seed. The paper's numbers are of "
    "one run each.",
)
NOISE = Topic(
    "Label noise",
    (
        noise(OURS, LS, "Trained with wrong labels, MaxSup classifies better than label smoothing."),
        noise(OURS, CE, "Trained with wrong labels, MaxSup classifies better than cross-entropy."),
        noise(OURS, LS, "MaxSup loses less accuracy by wrong labels than label smoothing.", WITHOUT_NOISE),
    ),
    "The paper says in half a sentence that MaxSup is more robust to label noise, and has no experiment of it. The "
    "last claim compares the changes from the comparison with right labels.",
)
SEGMENTATION = Topic(
    "Segmentation",
    (
        segmentation(OURS, LS, "Fine-tuned to segment, MaxSup's backbone is better than label smoothing's."),
        segmentation(OURS, CE, "Fine-tuned to segment, MaxSup's backbone is better than cross-entropy's."),
    ),
    "The paper's numbers are of one run each.",
)
OVERLAYS = Topic(
    "Where the network looks",
    (
        Claim(
            "Grad-CAM precision: max-sup above label-smoothing",
            "More of what Grad-CAM marks lies on the object with MaxSup than with label smoothing.",
            "§5.4, Figure 3",
            measure="localization.*.precision@0.5",
            of=OURS,
            than=LS,
            expected="higher",
            setting=PLAIN,
            commands=(
                "maxsup compare fashion-scenes-resnet18 --out DIR/fashion-scenes",
                "maxsup analyze DIR/fashion-scenes",
            ),
        ),
    ),
    "The paper gives no number and no threshold; here it is half of the largest activation. That recall stays or "
    "improves is no difference in one direction, so it is not tested.",
)
BEYOND = Topic(
    "Beyond the paper",
    (
        Claim(
            "long tail: max-sup above label-smoothing",
            "Trained on classes of falling size, MaxSup classifies better than label smoothing.",
            "the authors' later numbers on long-tailed CIFAR-10",
            measure="test.accuracy",
            of=OURS,
            than=LS,
            expected="higher",
            setting=LONG_TAILED,
            commands=(
                "maxsup compare fashion-mnist-resnet18 --data.imbalance 50 --out DIR/fashion-mnist-imbalance-50",
            ),
        ),
    ),
)
TOPICS = (
    ACCURACY,
    VARIATION,
    SEPARABILITY,
    TRANSFER,
    OVERCONFIDENCE,
    PARTS,
    SCHEDULE,
    NOISE,
    SEGMENTATION,
    OVERLAYS,
    BEYOND,
)
