// SPDX-License-Identifier: Apache-2.0

// ML-DSA-44 cosignatures (C2SP tlog-cosignature, signature type 0x06) as Go sees them: golang.org/x/mod/sumdb/note reads
// and writes the notes, crypto/mldsa signs and verifies, and the signed message is put together here from the
// specification. It ends with 1 and says why if anything does not hold.
//
//	cosigner verify VKEY             opens the note on standard input and prints the cosignature's time
//	cosigner sign NAME SEED SECONDS  prints the key and the signed note on standard input with a cosignature added
package main

import (
	"bytes"
	"crypto/mldsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const kind = 6

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// message is the cosigned_message of a whole tree.
func message(name string, seconds uint64, text []byte) ([]byte, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) < 4 {
		return nil, errors.New("no checkpoint")
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return nil, err
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return nil, errors.New("no root")
	}
	var built bytes.Buffer
	built.WriteString("subtree/v1\n\x00")
	opaque := func(text string) {
		built.WriteByte(byte(len(text)))
		built.WriteString(text)
	}
	opaque(name)
	binary.Write(&built, binary.BigEndian, seconds)
	opaque(lines[0])
	binary.Write(&built, binary.BigEndian, uint64(0))
	binary.Write(&built, binary.BigEndian, size)
	built.Write(root)
	return built.Bytes(), nil
}

// key is a note.Verifier.
type key struct {
	name    string
	public  *mldsa.PublicKey
	seconds uint64
}

func (known *key) Name() string { return known.name }

func (known *key) material() []byte { return append([]byte{kind}, known.public.Bytes()...) }

func (known *key) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(known.name+"\n"), known.material()...))
	return binary.BigEndian.Uint32(sum[:])
}

func (known *key) String() string {
	return fmt.Sprintf("%s+%08x+%s", known.name, known.KeyHash(), base64.StdEncoding.EncodeToString(known.material()))
}

func (known *key) Verify(text, signature []byte) bool {
	if len(signature) != 8+mldsa.MLDSA44().SignatureSize() {
		return false
	}
	known.seconds = binary.BigEndian.Uint64(signature)
	signed, err := message(known.name, known.seconds, text)
	return err == nil && mldsa.Verify(known.public, signed, signature[8:], nil) == nil
}

// signer is a note.Signer.
type signer struct {
	*key
	private *mldsa.PrivateKey
}

func (own signer) Sign(text []byte) ([]byte, error) {
	signed, err := message(own.name, own.seconds, text)
	if err != nil {
		return nil, err
	}
	signature, err := own.private.Sign(nil, signed, nil)
	return append(binary.BigEndian.AppendUint64(nil, own.seconds), signature...), err
}

func parse(vkey string) *key {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	material, err := base64.StdEncoding.DecodeString(encoded)
	check(err)
	if len(material) == 0 || material[0] != kind {
		check(errors.New("not of signature type 6"))
	}
	public, err := mldsa.NewPublicKey(mldsa.MLDSA44(), material[1:])
	check(err)
	known := &key{name: name, public: public}
	if hash != fmt.Sprintf("%08x", known.KeyHash()) {
		check(errors.New("another key ID"))
	}
	return known
}

func main() {
	text, err := io.ReadAll(os.Stdin)
	check(err)
	switch os.Args[1] {
	case "verify":
		known := parse(os.Args[2])
		_, err := note.Open(text, note.VerifierList(known))
		check(err)
		fmt.Println(known.seconds)
	case "sign":
		seed, err := hex.DecodeString(os.Args[3])
		check(err)
		private, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
		check(err)
		seconds, err := strconv.ParseUint(os.Args[4], 10, 63)
		check(err)
		own := signer{&key{os.Args[2], private.PublicKey(), seconds}, private}
		body, lines, _ := strings.Cut(string(text), "\n\n")
		added, err := note.Sign(&note.Note{Text: body + "\n"}, own)
		check(err)
		_, line, _ := strings.Cut(string(added), "\n\n")
		fmt.Print(own, "\n", body, "\n\n", lines, line)
	}
}
