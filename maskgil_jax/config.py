"""Every field of every run, with its default and a comment; `configs/*.py` state the difference.

A config is one stage ("tokenizer", "codes" or "generator"), or `stages`: several of them, run in
order. Configs are locked: an unknown key is an error, in a file and on the command line.
Strings may hold `{workdir}`, which stands for the work directory given on the command line.
"""

from ml_collections import ConfigDict

from maskgil_jax.runtime.errors import InputError

# Keeps compiled programs for the next start; "": nowhere. JAX_COMPILATION_CACHE_DIR comes first.
# They are code that is run: a directory of your own.
_COMPILED = "{workdir}/compilation_cache"


def _images() -> dict:
    return dict(
        source="",  # embedded | folder:PATH | nested:PATH | parquet:PATTERN | hf:DIR |
        # tar:PATTERN | coco:JSON | tfds:NAME/SPLIT | arrayrecord:DIR (code shards)
        image_size=256,  # pixels; images are scaled and cropped to a square of this side
        crop="random",  # random (LlamaGen's random_crop_arr) | whole_side (taming: as much of the
        # image as fits, cut at random) | center (the same, its middle; ADM)
        flip=True,  # mirror half of the images
        color="srgb",  # srgb (converted from each image's ICC profile) | ignore (as pixels are
        # stored: what the official codes do)
        resize="exact",  # exact (Pillow's bicubic filter, as the official codes) | fast (OpenCV's,
        # and JPEG decoded at a part of its size where that is enough)
        threads=16,  # threads that load examples, of each worker
        workers=0,  # processes beside each process of the run that load examples; 0: none, it does
        bad_image_limit=0.01,  # share of images that may be unreadable; one may, unless it is 0
    )


def _training() -> dict:
    return dict(
        seed=0,  # initial weights, data order, masks, dropout
        steps=1000,  # optimizer steps
        batch_size=256,  # images a step, over all devices and processes
        accumulate_steps=1,  # micro-batches that one optimizer step is computed in
        mesh=dict(data=-1, fsdp=1, tensor=1, slices=0),  # devices per axis, in each slice; -1: all
        # that are left, and of both data and fsdp: as suits the model's width (sharding.with_fsdp).
        # Slices (of TPUs) are crossed by data parallelism alone; 0: all there are
        compiler_options="",  # NAME=VALUE,... of XLA's compiler, instead of those that the chip has
        # in runtime/compiler_options.py; NAME= leaves one out
        ema_decay=0.0,  # decay of the averaged weights; 0: none are kept
        log_every=50,  # steps
        checkpoint_every=1000,  # steps
        pictures_every=1000,  # steps between sample grids or reconstructions in TensorBoard
        keep_checkpoints=2,  # newest ones kept
        keep_every=0,  # steps; checkpoints of multiples of it are kept for good; 0: none
        keep_every_epochs=0.0,  # the same in epochs of the training data, 0.5 or 50 of them
        keep_steps=(),  # steps whose checkpoints are kept for good beside those, as (200, 400)
        tracker="",  # wandb | wandb:PROJECT | MODULE:FUNCTION (training/trackers.py); "": none
        trace="",  # START:STOP, steps of which JAX's profiler writes WORKDIR/trace; "": none
        compilation_cache=_COMPILED,
        skips_allowed=10,  # steps in a row whose loss or gradients are not finite (each is skipped)
    )


def _optimizer(learning_rate: float, beta1: float, beta2: float, weight_decay: float) -> dict:
    return dict(
        algorithm="adamw",  # | muon: the matrices of layers by Muon, the rest by AdamW
        learning_rate=learning_rate,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,  # decoupled
        decay_norms=True,  # of scales and biases too (MaskGIL's code); LlamaGen's: False
        clip_norm=1.0,  # global gradient norm; 0: no clipping
        warmup_steps=0,  # linear warm-up to learning_rate
        schedule="constant",  # constant | cosine (to 0 at the last step)
        milestones=(),  # steps at which a constant rate drops to a tenth
    )


def tokenizer() -> ConfigDict:
    """An image tokenizer: LlamaGen's VQ-16 and its recipe unless changed."""
    config = ConfigDict(dict(stage="tokenizer", **_training(), data=_images()))
    config.update(
        model=dict(
            style="vqgan",  # vqgan | magvit2 | maskgit: blocks, padding, norms (tokenizers/vq.py)
            channels=128,  # width of the first level
            channel_multipliers=(1, 1, 2, 2, 4),  # one per level; each but the last halves the side
            res_blocks=2,  # per level of the encoder
            attention=True,  # at the lowest resolution
            z_channels=256,  # width between convolutions and codebook projections; 0: none
            quantizer="cosine",  # cosine | euclidean | lookup_free
            codebook_size=16384,
            codebook_dim=8,
            search_block=2**26,  # most distances between latents and codes held at once
            dtype="bfloat16",  # of the convolutions; codebook search and parameters are float32
        ),
        discriminator=dict(  # trained where loss.adversarial_weight or feature_weight is not 0
            kind="patchgan",  # patchgan | stylegan
            channels=64,  # of the first layer (stylegan: at 256 pixels)
            layers=3,  # patchgan's strided layers
        ),
        loss=dict(
            reconstruction="l2",  # l2 | l1
            lpips="",  # LPIPS directory; needed where perceptual_weight is not 0
            perceptual_weight=1.0,
            lpips_dropout=False,  # on, as in the official training codes by oversight
            feature_weight=0.0,  # L1 between the discriminator's features: needs no other weights
            codebook_weight=1.0,  # moves the codebook to the latents
            commitment_weight=0.25,  # moves the latents to the codebook
            entropy_weight=0.0,  # sharp assignments, evenly spread over the codebook
            adversarial="hinge",  # hinge | non_saturating | non_saturating_released
            adversarial_weight=0.5,
            adaptive_weight=False,  # times |gradient of nll| / |gradient of adversarial|
            adversarial_start=20000,  # step; generator and discriminator terms are 0 before it
            discriminator="hinge",  # hinge | vanilla | non_saturating_released
            discriminator_weight=0.5,
            lecam_weight=0.0,  # regularises the discriminator
            r1_weight=0.0,  # squared gradient of the discriminator at real images
        ),
        codebook=dict(
            usage_window=65536,  # codes that codebook_usage looks back on
            restart_every=0,  # steps; unused codes restart at latents of the batch; 0: never
        ),
        start_from=dict(
            tokenizer="",  # directory of a tokenizer to go on from; "": random weights
            discriminator="",  # the same of a discriminator
        ),
        optimizer=_optimizer(1e-4, beta1=0.9, beta2=0.95, weight_decay=0.0),
        samples=dict(count=8),  # originals and reconstructions shown
        evaluation=dict(
            reference="", count=1000
        ),  # images to reconstruct; "": those of data.source
    )
    config.batch_size = 128
    config.steps = 40 * 1_281_167 // 128  # 40 epochs of ImageNet
    config.checkpoint_every = 5000
    config.pictures_every = 5000
    return config.lock()


def taming_tokenizer() -> ConfigDict:
    """The VQGAN of taming-transformers (f16, 1,024 codes) and its recipe."""
    config = tokenizer()
    config.batch_size = 96  # 12 on each of 8 GPUs
    config.steps = 40 * 1_281_167 // 96  # its config states none: the epochs of LlamaGen
    config.data.update(crop="whole_side", flip=False)
    config.model.update(
        quantizer="euclidean", codebook_size=1024, codebook_dim=256, dtype="float32"
    )
    config.loss.update(
        reconstruction="l1",
        codebook_weight=0.25,  # its "legacy" loss has beta on this term
        commitment_weight=1.0,
        adversarial_weight=0.8,
        adaptive_weight=True,
        adversarial_start=250_001,
        discriminator_weight=1.0,
    )
    # Its rule: 4.5e-6 times the batch size.
    config.optimizer.update(learning_rate=4.5e-6 * 96, beta1=0.5, beta2=0.9, clip_norm=0.0)
    return config


def codes() -> ConfigDict:
    """Images to code shards (`python -m maskgil_jax.tokenize` as a stage)."""
    return ConfigDict(
        dict(
            stage="codes",
            tokenizer="",  # tokenizer directory
            source="",  # as in data.source
            image_size=256,  # pixels: side of the squares
            buckets="",  # "": all images become squares | pixart | lumina: each the size of that
            # list that fits it best, of about the area of the square (data/images/buckets.py)
            crops="center",  # center | flip (center and its mirror) | random | ten (ten-crop; of
            # squares only)
            views=1,  # of each image, for crops random
            encoder="",  # directory of a text encoder: captions are kept too, as its token ids
            features=False,  # and as its features, which training then need not compute
            caption_tokens=256,  # that are kept of a caption
            recordings=False,  # keep the recordings that tars hold beside the images
            seed=0,  # of random crops
            color="srgb",  # as in data.color
            batch_size=64,  # images encoded at once on each device, or fewer, by its memory
            memory=0.0,  # GiB of a device to stay within beside the weights; 0: what is free there
            compilation_cache=_COMPILED,
            shard_size=4096,  # images per file
            bad_image_limit=0.01,  # share of images that may be unreadable; one may, unless it is 0
        )
    ).lock()


def generator() -> ConfigDict:
    """A class-conditional MaskGIL generator (size B unless changed), the paper's recipe."""
    config = ConfigDict(dict(stage="generator", **_training(), data=_images()))
    config.data.mixture = ()  # (("SOURCE", WEIGHT), ...) instead of data.source: examples are drawn
    # from these by weight; all images, or all code shards of one tokenizer
    config.data.buckets = ""  # "": squares | pixart | lumina: images are cropped to the size that
    # fits them best, of this list of about the area of the square, and each batch is of one size;
    # code shards know theirs
    config.data.speech = ""  # with an encoder of speech: folder of NAME.wav, of image NAME.jpg, or
    # of CLASS/*.wav, of which any goes with an image of the class; or "inside": the recordings that
    # tars hold beside their images, or code shards that were made of these
    config.data.features = ""  # folder of NAME.npy, features of text or speech of image NAME.jpg,
    # float [T, C], that the model is conditioned on; "": on the class
    config.update(
        tokenizer="",  # tokenizer directory; may be left out for shards, which name theirs
        encoder="",  # directory of an encoder that the model is conditioned by: of text (captions)
        # or of speech (data.speech; "log_mel" for the frames themselves)
        model=dict(
            layers=12,
            dim=768,
            heads=12,
            num_classes=1000,  # where the condition is the class; 0 without feature_dim: none
            feature_dim=0,  # C of the features of encoder or data.features; 0: of a class
            condition_tokens=1,  # T of those: more are cut off, fewer are padded
            preset="paper",  # paper | paper_causal | maskgil_released | llamagen | besnier |
            # maskgit | halton | chameleon (of lumina_generator)
            order="raster",  # of tokens that are predicted one by one: raster | halton; of causal
            # LLaMAs, and of one that is trained on both tasks (loss.autoregressive_share)
            factors=(),  # of LLaMAs: vocabularies of a code's digits, (64, 4096) for Open-MAGVIT2
            rope_positions="extended",  # of 2D RoPE, on grids larger than rope_grid: extended (rows
            # and columns are counted on) | interpolated (they are counted in smaller steps)
            rope_grid=(),  # (rows, columns) of the model to go on from, where they are interpolated
            # Of LLaMAs, over what the preset says; "": as it says.
            qk_norm="",  # of queries and keys: layer | rms | none
            post_norm="",  # of what attention and MLP give: sandwich | output | none
            rope="",  # 2d | 1d
            condition_position="",  # first | last
            condition_rope="",  # rotation of the condition: zero | identity
            joint_embedding="",  # one table for codes, mask and classes: true | false
            mask_logit="",  # the head has a column for the mask: true | false
            dropout=0.1,  # on the outputs of attention and MLP
            remat="minimal",  # recomputed in the backward pass: none | minimal (norms, activations:
            # what is cheap) | full (each layer: the least memory, the most time)
            unroll=1,  # layers in one iteration of the compiled loop; more take longer to compile
            dtype="bfloat16",  # of the computation; parameters are float32
        ),
        loss=dict(
            mask_schedule="arccos",  # of the share of masked tokens
            unmasked_weight=0.0,  # 0: masked tokens only; 1: all (released code); 0.1: TiTok
            autoregressive_share=0.0,  # of images whose first K tokens are predicted one by one,
            # each from those before it, and the rest masked: the model then draws in both ways
            split="uniform",  # distribution of K of those images: uniform (1 to all) | all
            label_smoothing=0.1,
            condition_dropout=0.1,
            distill_guidance=1.0,  # scale of guidance, along samples.guidance_ramp, under which the
            # predictions of start_from.generator are learned, to be drawn from without; 1: none are
            one_step=0.0,  # share of random codes, 0.4 in Di[M]O, among the masks that a student
            # reads which learns to draw all tokens in one step; 0: it learns to draw in steps
            chunk=64,  # positions whose logits exist at a time
        ),
        start_from=dict(
            generator="",  # directory of a generator to go on from, of any grid; "": random weights
        ),
        optimizer=_optimizer(1e-4, beta1=0.9, beta2=0.96, weight_decay=1e-5),
        samples=dict(
            classes=10,  # rows of the grid: this many classes, evenly spaced
            per_class=8,  # columns, in TensorBoard
            steps=8,
            guidance=3.0,  # scale s of u + s (c - u); 1: none
            guidance_form="scale",  # | weight: w of (1 + w) c - w u; 0: none
            guidance_ramp="linear",  # constant | linear | cosine | power_cosine
            schedule="arccos",
            rule="maskgil",  # | maskgit | halton | titok | maskbit | moment | choose | entropy
            temperature=1.0,  # divides the logits
            temperature_schedule="constant",  # constant | titok | halton
            choice_temperature=4.5,  # scale of the Gumbel noise on the confidence
            top_k=0,  # codes drawn from; 0: all
            top_p=1.0,  # the fewest codes that reach this probability; 1: all
            batch_size=64,
        ),
        evaluation=dict(
            per_class=8,  # images drawn of each class shown
            reference="",  # source of images to compare with; "": no metrics
            metrics=("frechet", "pr", "accuracy"),
            inception="",  # Inception directory, for fid, sfid, is; pr uses it too
        ),
    )
    config.steps = 300 * 1_281_167 // 256  # 300 epochs of ImageNet
    config.checkpoint_every = 5000
    config.pictures_every = 5000
    config.ema_decay = 0.9999
    return config.lock()


def causal_generator() -> ConfigDict:
    """A class-conditional causal LLaMA (size B unless changed), LlamaGen's recipe."""
    config = generator().unlock()
    config.model.update(
        preset="llamagen",
        embedding_dropout=0.1,  # on the embedded tokens: LlamaGen's token dropout
    )
    config.loss = dict(
        label_smoothing=0.0,
        condition_dropout=0.1,
        unmasked_weight=1.0,
        chunk=64,  # positions whose logits exist at a time
    )
    config.optimizer.update(beta2=0.95, weight_decay=0.05, decay_norms=False)
    config.samples = dict(
        classes=10,  # rows of the grid: this many classes, evenly spaced
        per_class=8,  # columns, in TensorBoard
        guidance=2.0,  # scale s of u + s (c - u); 1: none
        guidance_interval=-1,  # guide the first token and as many after it; -1: all
        temperature=1.0,  # divides the logits; 0: greedy
        top_k=0,  # codes drawn from; 0: all
        top_p=1.0,  # the fewest codes that reach this probability; 1: all
        batch_size=64,
    )
    return config.lock()


# Lumina-mGPT by its sizes.
_LUMINA = {
    "7B": dict(layers=32, dim=4096, heads=32, kv_heads=32, mlp_dim=11008, dropout=0.05),
    "34B": dict(
        layers=48, dim=8192, heads=64, kv_heads=8, mlp_dim=22016, post_norm="output", dropout=0.0
    ),
}


def lumina_generator(size: str) -> ConfigDict:
    """Lumina-mGPT, a model of text and image tokens in one sequence, and the recipe it is tuned by.

    Args:
      size: a key of _LUMINA.

    Raises:
      InputError: another size.
    """
    if size not in _LUMINA:
        raise InputError(f"{size!r} after the colon, expected {' or '.join(_LUMINA)}")
    config = causal_generator().unlock()
    config.vocabulary = ""  # tokenizer.json that captions are read by, or a directory with it; "":
    # that of start_from.generator
    config.model.update(
        preset="chameleon",
        num_classes=0,
        order="lines",
        embedding_dropout=0.0,
        condition_tokens=256,  # of a prompt and of what begins the image; longer captions are cut
        vocabulary=65536,  # ids of text, codes and signs
        qk_norm_rows=(1, 1) if size == "7B" else (4, 4),  # scales of queries' and of keys' heads
        remat="full",
    )
    config.model.update(_LUMINA[size])  # kv_heads: of keys and values; mlp_dim: hidden units
    config.loss = dict(
        condition_dropout=0.1,  # of prompts: the image alone, from its begin to its end
        z_loss_weight=1e-5,  # of the squared log of the softmax's denominator
        chunk=64,  # positions whose logits exist at a time
    )
    config.data.update(image_size=512, buckets="lumina")
    config.optimizer.update(
        learning_rate=2e-5, beta2=0.95, weight_decay=0.1, decay_norms=True, clip_norm=4.0
    )
    config.mesh.update(data=-1, fsdp=-1)
    config.ema_decay = 0.0
    config.batch_size = 256
    config.steps = 2 * 10_000_000 // 256  # 2 epochs of 10 million images
    config.optimizer.warmup_steps = 390  # a hundredth of an epoch
    config.samples.update(guidance=4.0, top_k=2000)
    return config.lock()


# Of prompted_generator, by pixels a side: epochs and the batch size.
_PROMPTED = {
    "256": (5, 1024),
    "512": (1, 1024),
    "1024": (1, 256),
}  # the last: as many tokens a step


def prompted_generator(name: str, size: str) -> ConfigDict:
    """MaskGIL-XL of text or speech, of many sizes of about so many pixels a side.

    What the paper leaves open, batch, epochs and the list of sizes, is ours and Lumina's.

    Args:
      name: of the config, by which the work directories of smaller sizes are found: 512 goes on
        from {name}/model, 1024 from {name}_512/model, beside the work directory.
      size: a key of _PROMPTED.

    Raises:
      InputError: another size; the nearest is named.
    """
    if size not in _PROMPTED:
        nearest = ""
        if size.isdecimal():
            nearest = f"; {min(_PROMPTED, key=lambda n: abs(int(n) - int(size)))} is the nearest"
        raise InputError(f"{size!r} after the colon, expected {' or '.join(_PROMPTED)}{nearest}")
    epochs, batch_size = _PROMPTED[size]
    config = generator().unlock()
    config.model.update(layers=36, dim=1280, heads=20, num_classes=0, remat="full")
    config.mesh.update(data=-1, fsdp=-1)
    config.data.update(image_size=int(size), buckets="lumina")
    config.batch_size = batch_size
    config.steps = epochs * 20_000_000 // batch_size  # 20 million images
    if size == "512":
        config.start_from.generator = f"{{workdir}}/../{name}/model"
    if size == "1024":
        config.start_from.generator = f"{{workdir}}/../{name}_512/model"
        config.model.update(rope_positions="interpolated", rope_grid=(32, 32))
        config.samples.update(classes=5, per_class=4)
    return config.lock()


# The stages that a run may have, in the order in which they are done.
STAGES = ("tokenizer", "codes", "generator")


def stages_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """The stages of a config by name, in the order of STAGES (a ConfigDict sorts its keys).

    Raises:
      InputError: none, an unknown one, or one twice.
    """
    if "base" in config:
        raise InputError("config: is a study, which maskgil_jax.study does")
    given = {**config.stages} if "stages" in config else {"": config}
    by_name: dict[str, ConfigDict] = {}
    for key, stage in given.items():
        name = stage.get("stage") if isinstance(stage, ConfigDict) else None
        if name not in STAGES or name in by_name:
            known = ", ".join(STAGES)
            raise InputError(
                f"config: stage {name!r}{f' of stages.{key}' if key else ''}, expected each of "
                f"{known} at most once"
            )
        by_name[name] = stage
    if not by_name:
        raise InputError(f"config: no stages, expected some of {', '.join(STAGES)}")
    return {name: by_name[name] for name in STAGES if name in by_name}
