package main

// ofPacks are bugs of contents that share a file.
func ofPacks() []mutant {
	return []mutant{
		{
			name: "a-pack-is-removed-that-is-written-to", promise: 2, file: "store/localblob/pack.go",
			old:   "	done := !f.pack.current && f.pack.writing == 0",
			new:   "	done := !f.pack.current",
			tests: []string{"store/localblob.TestAPackThatIsWrittenToStays"},
		},
		{
			name: "a-pack-goes-before-its-last-item", promise: 2, file: "store/localblob/pack.go",
			old:   "	if has, err := hasData(f.f); has || err != nil {",
			new:   "	if _, err := hasData(f.f); err != nil {",
			tests: []string{"store/localblob.TestSmallContentsSharePacks", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "an-item-is-settled-where-it-is-not", promise: 6, file: "store/localblob/write.go",
			old:   "	if err := w.f.committed(w.p.of(e)); err != nil {",
			new:   "	if err := w.f.committed(session.Range{Off: e.Off, End: e.Off + e.Len}); err != nil {",
			tests: []string{"store/localblob.TestAFailedSyncOfAPack"},
		},
		{
			name: "an-item-is-punched-under-its-reader", promise: 4, file: "store/localblob/punch.go",
			old:   "	if already || read {",
			new:   "	if already && read {",
			tests: []string{"store/localblob.TestConformance"},
		},
		{
			name: "a-deleted-item-reads-as-zeros", promise: 4, file: "store/localblob/punch.go",
			old:   "&& b == [itemHeader]byte{} {",
			new:   "&& false {",
			tests: []string{"store/localblob.TestConformance"},
		},
		{
			name: "deleting-takes-the-neighbour", promise: 8, file: "store/localblob/punch.go",
			old:   "	err := s.punchable(f, p)\n",
			new:   "	err := error(nil)\n",
			tests: []string{"store/localblob.TestDeletingTakesNobodyElsesBytes"},
		},
		{
			name: "content-may-look-like-an-item", promise: 8, file: "store/localblob/item.go",
			old:   "	sum := sha256.Sum256(append(k[:], b[:n+24]...))",
			new:   "	sum := sha256.Sum256(b[:n+24])",
			tests: []string{"store/localblob.TestNoContentLooksLikeAnItem"},
		},
		{
			name: "items-torn-by-a-crash-stay", promise: 7, file: "store/localblob/item.go",
			old:   "	if in.incarnation == s.Incarnation {\n		torn = nil",
			new:   "	if true {\n		torn = nil",
			tests: []string{"store/localblob.TestPowerLossLeavesNothingInPacks"},
		},
		{
			name: "what-a-failed-append-wrote-stays", promise: 7, file: "store/localblob/pack.go",
			old:   "	if err := b.f.f.Punch(b.off, b.n); err != nil {",
			new:   "	if err := error(nil); err != nil {",
			tests: []string{"store/localblob.TestAFailedAppend"},
		},
		{
			name: "a-poisoned-pack-is-appended-to", promise: 6, file: "store/localblob/pack.go",
			old:   "f == nil || f.checkWritable() != nil || ",
			new:   "f == nil || ",
			tests: []string{"store/localblob.TestAFailedSyncOfAPack"},
		},
		{
			name: "an-older-format-keeps-its-number", promise: 10, file: "store/localblob/localblob.go",
			old:   "		if err == nil && was.format > 0 && was.format < format {",
			new:   "		if err == nil && was.format < 0 {",
			tests: []string{"store/localblob.TestAFolderOfFormat1IsRaised"},
		},
	}
}
