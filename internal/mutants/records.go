package main

// ofRecords breaks what one bad record, block, log or reader of the log must not stop.
func ofRecords() []mutant {
	return []mutant{
		{
			name: "the-rest-of-a-torn-record-is-taken-for-rot", promise: 2, file: "store/pebblemeta/rot.go",
			old:   "log == 0 && c.begins() && len(c.payload) > 0",
			new:   "log == 0 && len(c.payload) > 0",
			tests: []string{"store/pebblemeta.TestWhatAPowerLossLeavesOfALogIsNoRot", "store/pebblemeta.TestAPowerLossWhileTheManifestGrows"},
		},
		{
			name: "rot-of-a-synced-manifest-is-taken-for-torn", promise: 4, file: "store/pebblemeta/rot.go",
			old:   "log == 0 && c.begins() && len(c.payload) > 0",
			new:   "log == 0 && c.begins() && len(c.payload) > 1<<20",
			tests: []string{"store/pebblemeta.TestRotBeforeTheEndOfALogIsFound"},
		},
	}
}
