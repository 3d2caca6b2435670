// SPDX-License-Identifier: Apache-2.0

// A log as Go sees it: golang.org/x/mod/sumdb/note opens its checkpoints, golang.org/x/mod/sumdb/tlog judges its tiles,
// its entries and the proofs that come on standard input. It ends with 1 and says why if anything does not hold.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type record struct {
	Index int64
	Entry []byte
	Proof [][]byte
}

type tree struct {
	Note  string
	Proof [][]byte
}

type proofs struct {
	Records []record
	Trees   []tree
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(text []byte, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		check(fmt.Errorf("origin %q", lines[0]))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: hash(root)}
}

func hash(value []byte) (found tlog.Hash) {
	if copy(found[:], value) != len(found) || len(value) != len(found) {
		check(fmt.Errorf("a hash of %d bytes", len(value)))
	}
	return found
}

func hashes(values [][]byte) (found []tlog.Hash) {
	for _, value := range values {
		found = append(found, hash(value))
	}
	return found
}

// files reads tiles as C2SP tlog-tiles names them: like Go, without the height.
type files struct{ folder string }

func (files) Height() int { return height }

func (files) SaveTiles([]tlog.Tile, [][]byte) {}

func (from files) ReadTiles(tiles []tlog.Tile) (found [][]byte, err error) {
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(from.folder, path(tile)))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func path(tile tlog.Tile) string {
	return strings.Replace(strings.Replace(tile.Path(), "tile/8/", "tile/", 1), "tile/data/", "tile/entries/", 1)
}

// entries reads every entry of a tree out of its bundles.
func entries(folder string, size int64) (found [][]byte) {
	for first := int64(0); first < size; first += 1 << height {
		width := min(size-first, 1<<height)
		name := path(tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)})
		data, err := os.ReadFile(filepath.Join(folder, name))
		check(err)
		for ; width > 0; width-- {
			if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
				check(fmt.Errorf("%s ends early", name))
			}
			length := int(binary.BigEndian.Uint16(data))
			found, data = append(found, data[2:2+length]), data[2+length:]
		}
		if len(data) != 0 {
			check(fmt.Errorf("%s is too long", name))
		}
	}
	return found
}

func main() {
	folder := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	text, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	check(err)
	newest := open(text, verifier)
	reader := tlog.TileHashReader(newest, files{folder})
	all := entries(folder, newest.N)
	for index, entry := range all {
		leaf := tlog.RecordHash(entry)
		proof, err := tlog.ProveRecord(newest.N, int64(index), reader)
		check(err)
		check(tlog.CheckRecord(proof, newest.N, newest.Hash, int64(index), leaf))
	}
	var given proofs
	check(json.NewDecoder(os.Stdin).Decode(&given))
	for _, one := range given.Records {
		check(tlog.CheckRecord(hashes(one.Proof), newest.N, newest.Hash, one.Index, tlog.RecordHash(one.Entry)))
	}
	for _, one := range given.Trees {
		old := open([]byte(one.Note), verifier)
		check(tlog.CheckTree(hashes(one.Proof), newest.N, newest.Hash, old.N, old.Hash))
		if old.N > 0 {
			proof, err := tlog.ProveTree(newest.N, old.N, reader)
			check(err)
			check(tlog.CheckTree(proof, newest.N, newest.Hash, old.N, old.Hash))
		}
	}
	fmt.Println(len(all), len(given.Records), len(given.Trees))
}
