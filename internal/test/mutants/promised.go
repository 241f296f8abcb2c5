package main

// ofPromised are bugs that ignore what a request says of its bytes, or what is known of those that
// are read.
func ofPromised() []mutant {
	return []mutant{
		{
			name: "a-finished-key-answers-another-digest", promise: 5, file: "upload/create.go",
			old:   "	case p.SHA256 != nil && *p.SHA256 != m.SHA256:",
			new:   "	case false:",
			tests: []string{"api.TestAKeyIsTiedToTheBytes"},
		},
		{
			name: "a-finished-key-does-not-read-the-body", promise: 5, file: "upload/create.go",
			old:   "	case p.CRC32C == nil && !p.Whole:",
			new:   "	case true:",
			tests: []string{"api.TestAKeyIsTiedToTheBytes"},
		},
		{
			name: "a-create-is-answered-with-anothers-bytes", promise: 5, file: "catalog/publish.go",
			old:   "bytes.Equal(row.Fingerprint, p.Fingerprint) && old.SHA256 == m.SHA256:",
			new:   "bytes.Equal(row.Fingerprint, p.Fingerprint):",
			tests: []string{"upload.TestTwoCreatesOfAKeyAtOnce"},
		},
		{
			name: "a-create-gives-its-key-up", promise: 5, file: "catalog/publish.go",
			old:   "		case found && p.Keyed:",
			new:   "		case false:",
			tests: []string{"upload.TestTwoCreatesOfAKeyAtOnce"},
		},
		{
			name: "an-md5-is-not-compared", promise: 4, file: "api/digest.go",
			old:   "got := c.hashes[d.algorithm].Sum(nil); !bytes.Equal(got, d.sum) {",
			new:   "got := c.hashes[d.algorithm].Sum(nil); d.algorithm != \"md5\" && !bytes.Equal(got, d.sum) {",
			tests: []string{"api.TestPromisesOfABodyAreKept"},
		},
		{
			name: "a-trailer-is-not-looked-at", promise: 4, file: "api/digest.go",
			old:   "	trailing, err := digestsIn(trailer)",
			new:   "	trailing, err := digestsIn(nil)",
			tests: []string{"api.TestPromisesInATrailer"},
		},
		{
			name: "a-range-with-an-md5-is-recorded-as-it-comes", promise: 4, file: "upload/put.go",
			old:   "p.CRC32C != nil || p.Whole",
			new:   "p.CRC32C != nil",
			tests: []string{"api.TestPromisesOfABodyAreKept"},
		},
		{
			name: "a-content-range-is-ignored", promise: 4, file: "api/headers.go",
			old:   "		if _, there := h[r.field]; there {",
			new:   "		if _, there := h[r.field]; there && r.field != \"Content-Range\" {",
			tests: []string{"api.TestWhatChangesTheMeaningOfABodyIsRefused"},
		},
		{
			name: "a-form-is-stored-with-its-boundaries", promise: 4, file: "api/headers.go",
			old:   "cmp.Or(refuseFields(h, refusedBodies), refuseMultipart(h))",
			new:   "cmp.Or(refuseFields(h, refusedBodies), nil)",
			tests: []string{"api.TestWhatChangesTheMeaningOfABodyIsRefused"},
		},
		{
			name: "a-weak-tag-is-taken-for-a-strong-one", promise: 4, file: "api/content.go",
			old:   "if !v.matches(tags, false) {",
			new:   "if !v.matches(tags, true) {",
			tests: []string{"api.TestConditionsOfAContent"},
		},
		{
			name: "a-part-of-a-known-extent-is-not-compared", promise: 4, file: "store/localblob/read.go",
			old:   "		if crc32.Update(mark(part.marks, i-1), castagnoli, b) != mark(part.marks, i) {",
			new:   "		if crc32.Update(mark(part.marks, i-1), castagnoli, b) != mark(part.marks, i) && false {",
			tests: []string{"store/localblob.TestReadingRot"},
		},
		{
			name: "what-is-remembered-of-extents-has-no-bound", promise: 11, file: "store/localblob/compared.go",
			old:   "		if c.n+cost <= mostMarks {",
			new:   "		if true {",
			tests: []string{"store/localblob.TestWhatIsRememberedIsBounded"},
		},
		{
			name: "a-content-is-answered-before-it-is-compared", promise: 4, file: "api/content.go",
			old:   "		k, err := body.Read((*buf)[:min(int64(len(*buf)), n-sent)])\n",
			new:   "		if c.status == 0 {\n			c.WriteHeader(status)\n		}\n		k, err := body.Read((*buf)[:min(int64(len(*buf)), n-sent)])\n",
			tests: []string{"api.TestNothingIsAnsweredBeforeItWasCompared"},
		},
		{
			name: "pieces-of-contents-have-no-bound", promise: 11, file: "api/content.go",
			old:   "	if n <= blockMin || s.limits.blocks.acquire(principal, size) != nil {",
			new:   "	if _ = s.limits.blocks.acquire(principal, size); n <= blockMin {",
			tests: []string{"api.TestAReaderThatGetsSlow"},
		},
		{
			name: "a-key-of-damaged-bytes-is-finished", promise: 4, file: "upload/begin.go",
			old:   "err != nil || !n.damaged.IsZero() {",
			new:   "err != nil {",
			tests: []string{"upload.TestARepeatHealsWhatIsDamaged"},
		},
		{
			name: "what-would-heal-is-discarded", promise: 4, file: "catalog/publish.go",
			old:   "	case since.IsZero():\n		err = Discard",
			new:   "	case since.IsZero() || true:\n		err = Discard",
			tests: []string{"upload.TestARepeatHealsWhatIsDamaged"},
		},
		{
			name: "what-heals-counts-once-more", promise: 4, file: "catalog/publish.go",
			old:   "		err = refContent(tx, p.Content, 0, p.At)",
			new:   "		err = refContent(tx, p.Content, 1, p.At)",
			tests: []string{"upload.TestARepeatHealsWhatIsDamaged"},
		},
	}
}
