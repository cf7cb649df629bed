import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from maskgil_jax.interop import engine, maskgil_gpt
from maskgil_jax.models.llama import Llama
from maskgil_jax.training import generator_stage, optimizer
from tests import golden

NAME = "train_maskgil"


def test_three_steps_equal_the_official_training():
    """Losses, gradients and weights of the released trainer, with its masks and dropped labels."""
    expected, tensors = golden.arrays(NAME), golden.weights(NAME)
    config = maskgil_gpt.config(tensors, heads=4)
    table = maskgil_gpt.entries(config)
    like = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    model = jax.tree.map(jnp.asarray, engine.load(table, tensors, like))
    recipe = golden.spec(NAME)["training"]
    adam, _ = optimizer.adamw(
        learning_rate=recipe["lr"],
        beta1=recipe["betas"][0],
        beta2=recipe["betas"][1],
        weight_decay=recipe["weight_decay"],
        clip_norm=recipe["clip_grad_norm"],
        warmup_steps=0,
        schedule="constant",
        milestones=(),
        steps=recipe["steps"],
    )
    settings = ConfigDict(dict(unmasked_weight=1.0, label_smoothing=recipe["label_smoothing"]))
    classes = np.where(expected["drop"], config.num_classes, expected["label"])

    @jax.jit
    def step(model, moments, hidden):
        examples = {"codes": expected["code"], "hidden": hidden, "classes": classes}
        (loss, sums), grads = jax.value_and_grad(generator_stage.summed_loss, has_aux=True)(
            model, examples, None, settings
        )
        grads = jax.tree.map(lambda g: g / sums["weight"], grads)
        updates, moments = adam.update(grads, moments, model)
        return optax.apply_updates(model, updates), moments, loss / sums["weight"], grads

    moments, losses, norms, first = adam.init(model), [], [], None
    with jax.default_matmul_precision("highest"):
        for hidden in expected["masks"]:
            model, moments, loss, grads = step(model, moments, hidden)
            first = first or engine.dump(table, grads)
            losses.append(loss)
            norms.append(optax.tree.norm(grads))
        inputs = np.where(expected["masks"][1], config.mask_id, expected["code"])
        logits = model(jnp.asarray(inputs), jnp.asarray(classes))

    golden.check(NAME, "losses", losses, expected["losses"])
    golden.check(NAME, "grad_norms", norms, expected["grad_norms"])
    golden.check(
        NAME, "grad0_wqkv", first["layers.0.attention.wqkv.weight"], expected["grad0_wqkv"]
    )
    golden.check(NAME, "grad0_tok_emb", first["tok_emb.weight"], expected["grad0_tok_emb"])
    golden.check(NAME, "final_logits", logits[:2, ::8], expected["final_logits"])
    after = engine.dump(table, model)
    for name in expected:
        if name.startswith("after_"):
            found = after[name.removeprefix("after_")]
            found = found[::4] if found.shape != expected[name].shape else found
            golden.check(NAME, name, found, expected[name])
