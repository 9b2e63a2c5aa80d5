"""Small wrong changes to the code, for ``make mutants``: where, what it says, what it would say, who must notice.

A text must occur once in its file; one that no longer does stops the run, so that this list follows the code.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A wrong change.

    Args:
        file: the path from the top of the checkout.
        right: what the file says; once.
        wrong: what the mutant says.
        tests: the test files, without ``test_`` and ``.py``, of which one must fail.
    """

    file: str
    right: str
    wrong: str
    tests: str


_COMPUTING = "sentence_forge/encoders/computing"
_RUNTIME = "sentence_forge/runtime"

MUTATIONS = [Mutation(*each) for each in [
    # losses
    ("losses/mnrl.py", "normalize(torch.cat(embeddings[1:]), dim=-1)", "torch.cat(embeddings[1:])", "losses"),
    ("losses/mnrl.py", "anchors_ND[rows] @ candidates_MD.T * self.scale", "anchors_ND[rows] @ candidates_MD.T",
     "losses"),
    ("losses/mnrl.py", "candidate_ids, positive_ids, anchor_ids)", "candidate_ids, positive_ids)", "losses"),
    ("losses/mnrl.py", "equal_RM.scatter_(1, own_R[:, None], False)", "equal_RM", "losses"),
    ("losses/mnrl.py", "(loss + self._ranked(scores_RN, own_R, count)) / 2",
     "loss + self._ranked(scores_RN, own_R, count)", "losses"),
    ("losses/softmax.py", "(u - v).abs()", "u - v", "losses"),
    ("losses/softmax.py", "argmax(dim=-1)", "argmin(dim=-1)", "losses tasks"),
    ("losses/triplet.py", "for negative in negatives]).mean()", "for negative in negatives[:1]]).mean()", "losses"),
    ("losses/triplet.py", "triplet_margin=margin)", "triplet_margin=5.0)", "losses"),
    ("losses/online_contrastive.py", "torch.tensor(labels) >= self.threshold", "torch.tensor(labels) > self.threshold",
     "modern_losses"),
    ("losses/matryoshka.py", "normalize(embedding[:, :dim], dim=-1)", "embedding[:, :dim]", "matryoshka"),
    ("losses/matryoshka.py", "weight * loss(_cut", "loss(_cut", "matryoshka"),
    # samplers and the learning rate
    ("train/batches.py", "order = np.random.default_rng([self.seed, number]).permutation(self.rows)",
     "order = np.random.default_rng([self.seed]).permutation(self.rows)", "train"),
    ("train/batches.py", "if seen.isdisjoint(texts):", "if True:", "train"),
    ("train/batches.py", "if len(batch) > 1:", "if len(batch) > 2:", "train"),
    ("train/batches.py", "self.position += 1\n        return self._cut[self.position - 1]",
     "self.position += 1\n        return self._cut[self.position - 2]", "train resume"),
    ("train/batches.py", "self.epoch, self.position = self.epoch + 1, 0", "self.epoch, self.position = self.epoch, 0",
     "train resume"),
    ("train/mixing.py", "sizes ** (1 / temperature)", "sizes ** temperature", "mix"),
    ("train/mixing.py", "np.maximum(counts, 1)", "counts", "mix"),
    ("train/optim.py", "rest = [p for p in parameters if p.ndim < 2]", "rest = [p for p in parameters if p.ndim < 1]",
     "train"),
    ("train/optim.py", "peak * step / max(1, warmup)", "peak * (step + 1) / max(1, warmup)", "train"),
    # the loop
    ("train/loop.py", "self._loss_of(planned) / plan.accumulate", "self._loss_of(planned)", "train"),
    ("train/loop.py", "if plan.max_grad_norm:", "if plan.max_grad_norm > 1e9:", "train"),
    ("train/loop.py", "value > state.best)", "value < state.best)", "train resume"),
    ("train/loop.py", "without_better >= self.plan.patience", "without_better > self.plan.patience", "train resume"),
    ("train/loop.py", "self.saver.wait()\n                    raise Interrupted", "raise Interrupted", "train"),
    ("train/loop.py", "state.epoch, state.position = self._ahead.epoch, self._ahead.position",
     "state.epoch = self._ahead.epoch", "resume"),
    # checkpoints and files
    ("train/checkpoint.py", "tensor.detach().to(to or tensor.device, copy=True)", "tensor.detach()", "durability"),
    ("train/checkpoint.py", "optimizer.load_state_dict(_joined(", "(lambda state: None)(_joined(", "resume durability"),
    ("train/generators.py", "    random.setstate(", "    (lambda state: None)(", "durability resume"),
    ("train/generators.py", "        torch.set_rng_state(tensors[f\"cpu.{rank}\"])", "        pass",
     "durability resume"),
    ("train/checkpoint.py", "    read_manifest(given)\n    return given", "    return given", "durability"),
    ("train/checkpoint.py", "steps(run)[: -max(1, keep)]", "steps(run)[: -max(1, keep - 1)]", "durability train"),
    ("train/checkpoint.py", "folder.name.rpartition(\"-\")[2]) > step:", "folder.name.rpartition(\"-\")[2]) >= step:",
     "resume"),
    (f"{_RUNTIME}/files.py", "            fsync_tree(staged)\n", "", "durability locks failing_calls"),
    (f"{_RUNTIME}/files.py", "    fsync(path.parent)\n    remove(staged)", "    remove(staged)", "durability"),
    (f"{_RUNTIME}/files.py", "if path.is_dir() and not path.is_symlink():", "if path.is_dir():", "locks"),
    (f"{_RUNTIME}/manifests.py", "sha256_file(file) == expected.get(\"sha256\")", "True", "durability"),
    (f"{_RUNTIME}/locks.py", "os.O_CREAT | os.O_NOFOLLOW", "os.O_CREAT", "locks"),
    (f"{_RUNTIME}/trust.py", "if plugins and \"plugins\" not in typed:", "if False:", "trust"),
    # statistics and measures
    ("eval/stats.py", "(last - (counts - 1) / 2)[group]", "last[group]", "stats"),
    ("eval/stats.py", "rng.integers(0, n, size=(size, n))", "rng.integers(0, n - 1, size=(size, n))", "stats"),
    ("eval/stats.py", "np.nanquantile(samples, [tail, 1 - tail])", "np.nanquantile(samples, [2 * tail, 1 - 2 * tail])",
     "stats"),
    ("eval/stats.py", "2 * (smaller + 1) / (len(kept) + 1)", "(smaller + 1) / (len(kept) + 1)", "stats"),
    ("eval/significance.py", "(n - 1) * (1 + r_ab) / below", "(n - 1) * (1 - r_ab) / below", "honesty"),
    ("eval/ranking.py", "f\"recall@{k}\": hit[:, :k]", "f\"recall@{k}\": hit[:, :k + 1]", "tasks judged"),
    ("eval/ranking.py", "np.log2(np.arange(2, K + 2))", "np.log2(np.arange(3, K + 3))", "tasks judged"),
    ("eval/ranking.py", "1 / (1 + hit[:, :K].argmax(axis=1))", "1 / (2 + hit[:, :K].argmax(axis=1))", "tasks judged"),
    ("eval/thresholds.py", "np.append(ranked[1:] < ranked[:-1], True)", "np.append(ranked[1:] <= ranked[:-1], True)",
     "tasks"),
    # readers
    ("data_readers/formats/delimited.py", "if len(cells) == width:", "if len(cells) >= width:", "readers"),
    ("data_readers/formats/delimited.py", "again.extendleft(reversed(taken[1:]))",
     "again.extendleft(reversed(taken[2:]))", "readers"),
    ("data_readers/hold_out.py", "if sizes[key] < 2 * wanted:", "if sizes[key] <= 2 * wanted + 9:", "readers"),
    ("data_readers/derive.py", "if hypotheses[position] not in entailed]", "if True]", "readers"),
    ("data_readers/training_hashes.py", "sorted(texts)", "texts", "honesty streaming"),
    # forward
    (f"{_COMPUTING}/layout.py", "owner[self.places] = np.repeat(np.arange(len(self.lengths)), self.lengths)",
     "owner[self.places] = 0", "forward"),
    (f"{_COMPUTING}/plan.py", "positions += how.first_position", "positions += 0", "forward models model_kinds"),
    (f"{_COMPUTING}/flat_way.py", "torch.cat(made).index_select(0, whole[\"order\"])", "torch.cat(made)", "forward"),
    (f"{_COMPUTING}/ways.py", "real = np.arange(rectangle[1])[None, :] < tokens.lengths[:, None]",
     "real = np.arange(rectangle[1])[None, :] <= tokens.lengths[:, None]", "forward encoding"),
    # search
    ("sentence_forge/encoders/similarity.py", "floor = np.partition(scores, -k)[-k] - ROUNDING",
     "floor = np.partition(scores, -k)[-k] + ROUNDING", "fast_index search indexing"),
    ("sentence_forge/encoders/similarity.py", "np.argsort(-scores, kind=\"stable\")[:k]",
     "np.argsort(scores, kind=\"stable\")[:k]", "fast_index search indexing"),
    ("search/fast.py", "scores >= tenth[:, None]", "scores >= tenth[:, None] - 1", "fast_index"),
    ("search/sharded.py", "found.append((scores, rows + start))", "found.append((scores, rows))", "shards"),
    ("search/sharded.py", "np.argsort(-scores, axis=1, kind=\"stable\")[:, :k]", "np.argsort(scores, axis=1)[:, :k]",
     "shards"),
    ("search/shard_writing.py", "and np.array_equal(sources[place].hashes, hashes)", "and True", "shards"),
    ("search/shard_writing.py", "< RECALL:\n        log", "< 0:\n        log", "shards"),
    ("search/shards.py", "sum(each[\"rows\"] for each in said) == manifest[\"rows\"]", "True", "shards"),
    ("search/vectors.py", "rows[mine] - (self._ends[number] - len(part))", "rows[mine]", "shards"),
    ("search/pairs.py", "other = lower != higher", "other = lower <= higher", "search"),
    ("search/indexing.py", "first[~np.isin(rows.hashes[first], known)]", "first", "indexing"),
    ("search/corpus_checks.py", "removed <= most * before", "removed < most * before + 9",
     "export_api"),
    ("search/mining.py", "if cosine <= least - margin * abs(least)]", "if cosine <= least]", "mining"),
    ("search/postgres/index.py", "IsolationLevel.REPEATABLE_READ", "IsolationLevel.READ_COMMITTED", "postgres"),
    ("search/postgres/nearest.py", "limit *= 4", "return scores[order], rows[order]", "postgres"),
    ("search/postgres/nearest.py", "if not scan and len(found) <", "if len(found) < 0 and 0 <", "postgres_faults"),
    ("search/postgres/tables.py", "number = max(least, found[0])", "number = least", "postgres_faults"),
    ("search/postgres/locks.py", "if time.monotonic() > until:\n                raise", "raise", "postgres_faults"),
    ("search/segments.py", "        except UnreadableError:\n            raise\n", "", "unreadable"),
    ("search/serve/live.py", "min(2 * pause, max(seconds, 60.0)) if self._reason else seconds", "seconds",
     "unreadable"),
    ("search/postgres/load.py", "i.sha <> r.sha OR i.kept <> r.kept", "i.kept <> r.kept", "postgres"),
    ("search/postgres/tables.py", "for part in (\"_rows_\", \"_vectors_\") if", "for part in () if",
     "postgres postgres_commands"),
    ("search/index.py", "fast.search(normalise(queries), k)", "fast.search(queries, k)", "fast_index search indexing"),
]]
