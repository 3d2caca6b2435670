# SPDX-License-Identifier: Apache-2.0
"""Inclusion and consistency proofs (RFC 6962 §2.1.1, §2.1.2; verified after RFC 9162 §2.1.3.2, §2.1.4.2).

Proofs are made sans-I/O in two steps: `…_tiles` names the tiles of the (newer) tree that are needed,
`…_proof` computes the proof from their content.

Size 0: nothing is included in the empty tree. RFC 6962 leaves consistency with it undefined; a witness that
has seen nothing must accept an empty proof (C2SP tlog-witness), so here every tree extends the empty one if
the proof is empty and the old root is the hash of the empty tree. Anything else with size 0 is refused.
"""

from collections.abc import Iterator

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.subtree import Span, Tiles, check_size, span_hash, tiles_of
from privyseal.tlog.tile import Tile
from privyseal.tlog.tree import EMPTY_ROOT, HASH_BYTES, MAX_TREE_SIZE, node_hash

__all__ = [
    "MAX_PROOF_HASHES",
    "consistency_proof",
    "consistency_tiles",
    "inclusion_proof",
    "inclusion_tiles",
    "verify_consistency",
    "verify_inclusion",
]

#: No proof of either kind in a tree below 2^63 leaves is longer.
MAX_PROOF_HASHES = 64


def inclusion_tiles(index: int, size: int) -> tuple[Tile, ...]:
    """The tiles that an inclusion proof for leaf `index` in the tree of `size` leaves needs.

    Raises:
        MalformedInputError: `proof.range` unless 0 <= index < size < 2^63.
    """
    return tiles_of(_inclusion_spans(index, size), tree_size=size)


def inclusion_proof(index: int, size: int, tiles: Tiles) -> tuple[bytes, ...]:
    """Prove that leaf `index` is in the tree of `size` leaves (RFC 6962 §2.1.1).

    Args:
        index: Zero-based leaf number.
        size: Tree size.
        tiles: Content of at least the tiles that `inclusion_tiles` names.

    Returns:
        Sibling hashes of 32 bytes, leaf side first.

    Raises:
        MalformedInputError: `proof.range`, or `tile.malformed` for a tile of another length.
        UnavailableError: `tile.missing` if a tile is absent; the log itself is not judged.
    """
    return tuple(span_hash(span, tree_size=size, tiles=tiles) for span in _inclusion_spans(index, size))


def consistency_tiles(old: int, new: int) -> tuple[Tile, ...]:
    """The tiles (of the tree of size `new`) that a proof that it extends the tree of size `old` needs.

    Raises:
        MalformedInputError: `proof.range` unless 0 <= old <= new < 2^63.
    """
    return tiles_of(_consistency_spans(old, new), tree_size=new)


def consistency_proof(old: int, new: int, tiles: Tiles) -> tuple[bytes, ...]:
    """Prove that the tree of `new` leaves extends the one of `old` leaves (RFC 6962 §2.1.2).

    Returns:
        The proof; empty if the sizes are equal or `old` is 0.

    Raises:
        MalformedInputError: `proof.range`, or `tile.malformed` for a tile of another length.
        UnavailableError: `tile.missing` if a tile that `consistency_tiles` names is absent.
    """
    return tuple(span_hash(span, tree_size=new, tiles=tiles) for span in _consistency_spans(old, new))


def _split(start: int, end: int) -> int:
    """Where RFC 6962 splits D[start:end]: behind the largest power of two smaller than the length."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _inclusion_spans(index: int, size: int) -> tuple[Span, ...]:
    check_size(size)
    if not 0 <= index < size:
        raise MalformedInputError("proof.range", f"leaf {index} is not in a tree of size {size}")
    start, end = 0, size
    siblings: list[Span] = []
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            siblings.append(Span(start=middle, end=end))
            end = middle
        else:
            siblings.append(Span(start=start, end=middle))
            start = middle
    return tuple(reversed(siblings))


def _consistency_spans(old: int, new: int) -> tuple[Span, ...]:
    check_size(new)
    if not 0 <= old <= new:
        raise MalformedInputError("proof.range", f"a tree of size {new} cannot extend one of size {old}")
    if old in (0, new):
        return ()
    start, end = 0, new
    spans: list[Span] = []
    while end != old:
        middle = _split(start, end)
        if old <= middle:
            spans.append(Span(start=middle, end=end))
            end = middle
        else:
            spans.append(Span(start=start, end=middle))
            start = middle
    # SUBPROOF's boolean: the verifier knows the old root itself, so it is left out where it stands alone.
    if start > 0:
        spans.append(Span(start=start, end=end))
    return tuple(reversed(spans))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: tuple[bytes, ...], root: bytes) -> None:
    """Check an inclusion proof (RFC 9162 §2.1.3.2).

    Args:
        leaf: Leaf hash of the entry.
        index: Zero-based leaf number.
        size: Tree size.
        proof: Sibling hashes, leaf side first.
        root: Root of the tree, from a checkpoint whose signature was checked.

    Raises:
        VerificationError: `proof.inclusion`.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise VerificationError("proof.inclusion", f"leaf {index} cannot be in a tree of size {size}")
    _check_hashes("proof.inclusion", proof, leaf, root)
    node, last = leaf, size - 1
    for sibling in proof:
        if last == 0:
            raise VerificationError("proof.inclusion", f"the proof for leaf {index} of {size} has too many hashes")
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    if last != 0 or node != root:
        raise VerificationError(
            "proof.inclusion", "the inclusion proof does not lead from the entry to the checkpoint's root"
        )


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: tuple[bytes, ...]
) -> None:
    """Check that the tree of the new checkpoint extends that of the old one (RFC 9162 §2.1.4.2).

    See the module for size 0.

    Raises:
        VerificationError: `proof.consistency`.
    """
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise VerificationError("proof.consistency", f"a tree of size {new_size} cannot extend one of size {old_size}")
    # At one and the same size it is enough that the roots are equal, whatever they are.
    roots = () if old_size == new_size else (old_root, new_root)
    _check_hashes("proof.consistency", proof, *roots)
    if old_size in (0, new_size):
        _verify_trivial_consistency(old_size, new_size, old_root, new_root, proof)
        return
    hashes = iter(proof)
    # An old tree that is one complete subtree stands in the proof by its root, which the verifier knows.
    first = old_root if old_size & (old_size - 1) == 0 else next(hashes, b"")
    if _climb(old_size, new_size, first, hashes) != (old_root, new_root):
        raise VerificationError(
            "proof.consistency",
            f"the consistency proof does not lead from the root at size {old_size} to the one at {new_size}",
        )


def _verify_trivial_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: tuple[bytes, ...]
) -> None:
    if proof:
        raise VerificationError(
            "proof.consistency", f"a proof from size {old_size} to {new_size} must be empty, and is not"
        )
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise VerificationError("proof.consistency", "the root at size 0 is not that of the empty tree")
    if old_size == new_size and old_root != new_root:
        raise VerificationError("proof.consistency", f"two roots at the same size {new_size}")


def _climb(old_size: int, new_size: int, first: bytes, hashes: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Both roots that a proof leads to (RFC 9162 §2.1.4.2 steps 3 to 6); empty where its length is wrong."""
    old_node, new_node = old_size - 1, new_size - 1
    while old_node & 1:
        old_node, new_node = old_node >> 1, new_node >> 1
    old_hash = new_hash = first
    for sibling in hashes:
        if new_node == 0:
            return b"", b""
        if old_node & 1 or old_node == new_node:
            old_hash, new_hash = node_hash(sibling, old_hash), node_hash(sibling, new_hash)
            while not old_node & 1 and old_node:
                old_node, new_node = old_node >> 1, new_node >> 1
        else:
            new_hash = node_hash(new_hash, sibling)
        old_node, new_node = old_node >> 1, new_node >> 1
    return (old_hash, new_hash) if new_node == 0 else (b"", b"")


def _check_hashes(code: str, proof: tuple[bytes, ...], *others: bytes) -> None:
    if len(proof) > MAX_PROOF_HASHES:
        raise VerificationError(code, f"the proof has {len(proof)} hashes; no proof has over {MAX_PROOF_HASHES}")
    if any(len(value) != HASH_BYTES for value in (*proof, *others)):
        raise VerificationError(code, f"a hash of the proof, entry or root has not {HASH_BYTES} bytes")
