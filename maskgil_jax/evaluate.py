"""Images to metrics: python -m maskgil_jax.evaluate --samples=F --reference=F --output=F.json."""

import json
import logging

from absl import flags

from maskgil_jax import command

log = logging.getLogger("maskgil_jax")


def main() -> None:
    """Parse the flags, measure, write the JSON."""
    values = flags.FLAGS
    samples, reference = command.required("samples"), command.required("reference")
    output = command.required("output")
    from maskgil_jax.checkpoint import write_json
    from maskgil_jax.metrics import compare

    content = compare.compare(
        samples, reference, values.metrics, values.lpips, values.inception, values.features
    )
    write_json(output, content)
    for part in ("metrics", "real_to_real"):
        log.info("%s: %s", part, json.dumps(content[part]))
    log.info("wrote %s", output)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("samples", None, "F.npz, a folder of images, or a data source")
    flags.DEFINE_string("reference", None, "the same")
    flags.DEFINE_list(
        "metrics",
        ["frechet", "pr"],
        "some of frechet, pr, accuracy, psnr, ssim, lpips, codebook; with --inception fid, rfid, "
        "sfid, is too",
    )
    flags.DEFINE_string("lpips", "", "LPIPS directory, for the metric lpips")
    flags.DEFINE_string("inception", "", "Inception directory; pr uses it too where it is given")
    flags.DEFINE_string(
        "features",
        "",
        "MODULE:FUNCTION, uint8 [N, H, W, 3] -> floats [N, D]: a network of your own, which "
        "frechet, pr and accuracy use instead of pixels",
    )
    flags.DEFINE_string("output", None, "JSON file to write")


if __name__ == "__main__":
    define_flags()
    command.run(main)
