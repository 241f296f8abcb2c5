package main

// ofSalvage breaks what becomes of metadata that have lost rows.
func ofSalvage() []mutant {
	return []mutant{
		{
			name: "an-older-row-is-trusted", promise: 4, file: "store/pebblemeta/damaged.go",
			old:   "	return h.level < level || h.level == 0 && level == 0 && seq <= h.newest\n",
			new:   "	return false && seq <= h.newest\n",
			tests: []string{"store/pebblemeta.TestADamagedDatabaseGivesWhatIsSure", "cmd/sluice.TestWhatIsLeftOfTheMetadata"},
		},
		{
			name: "the-rows-beside-a-hole-are-lost", promise: 4, file: "store/pebblemeta/overlay.go",
			old:   "		kv = it.SeekGE(holes[i].hi, 0)\n",
			new:   "		return nil\n",
			tests: []string{"store/pebblemeta.TestADamagedDatabaseGivesWhatIsSure"},
		},
		{
			name: "a-deletion-over-a-hole-is-forgotten", promise: 3, file: "store/pebblemeta/damaged.go",
			old:   "		if sure && d.inHole(key.UserKey) {",
			new:   "		if sure && d.inHole(key.UserKey) && key.Kind() == pebble.InternalKeyKindSet {",
			tests: []string{"store/pebblemeta.TestADamagedDatabaseGivesWhatIsSure"},
		},
		{
			name: "totals-are-not-made-anew", promise: 4, file: "store/pebblemeta/salvage.go",
			old:   "	s.totals.Open, s.totals.Expected, s.totals.Received = 0, 0, 0\n",
			new:   "",
			tests: []string{"store/pebblemeta.TestWhatIsSalvagedIsADatabase"},
		},
		{
			name: "what-leads-to-sessions-is-not-made-anew", promise: 4, file: "store/pebblemeta/salvage.go",
			old:   "	return (&txn{batch: b}).index(nil, is)\n",
			new:   "	return (&txn{batch: b}).index(is, is)\n",
			tests: []string{"store/pebblemeta.TestWhatIsSalvagedIsADatabase"},
		},
		{
			name: "pieces-whose-records-are-lost-are-acknowledged", promise: 1, file: "store/pebblemeta/salvage.go",
			old:   "	for _, r := range missing {\n",
			new:   "	for _, r := range missing[:0] {\n",
			tests: []string{"store/pebblemeta.TestPiecesWhoseRecordsAreLost"},
		},
		{
			name: "an-upload-that-may-have-ended-goes-on", promise: 5, file: "store/pebblemeta/salvage.go",
			old:   "	case kind == keySession && !sure:\n",
			new:   "	case kind == keySession && !sure && len(row) == 0:\n",
			tests: []string{"store/pebblemeta.TestPiecesWhoseRecordsAreLost"},
		},
		{
			name: "what-is-salvaged-is-not-synced", promise: 2, file: "store/pebblemeta/defersync.go",
			old:   "			opened = errors.Join(f.Sync(), f.Close())\n",
			new:   "			opened = f.Close()\n",
			tests: []string{"store/pebblemeta.TestWhatIsSalvagedIsADatabase"},
		},
		{
			name: "a-token-that-may-be-revoked-lets-in", promise: 14, file: "keeper/salvage.go",
			old:   "	case catalog.Token:\n",
			new:   "	case catalog.Token:\n		return true\n	case *catalog.Token:\n",
			tests: []string{"keeper.TestNobodyComesInByAnOldRow", "cmd/sluice.TestWhatIsLeftOfTheMetadata"},
		},
		{
			name: "a-role-that-was-taken-away-is-back", promise: 15, file: "keeper/salvage_access.go",
			old:   "	gone := func(p string) bool { return !slices.Contains(confirmed, p) }\n",
			new:   "	gone := func(p string) bool { return false }\n",
			tests: []string{"keeper.TestNobodyComesInByAnOldRow"},
		},
		{
			name: "a-deleted-memory-is-back", promise: 3, file: "keeper/salvage_memories.go",
			old:   "	if h.last.Type == catalog.MemoryPurged {\n		s.deleteMemory(h.last.ID)\n		return nil\n	}\n",
			new:   "	if h.last.Type == catalog.MemoryPurged && h.state == nil {\n		return nil\n	}\n",
			tests: []string{"keeper.TestWhatBecameOfAMemory"},
		},
		{
			name: "a-story-without-its-end-is-believed", promise: 3, file: "keeper/salvage_memories.go",
			old:   "	if h.endLost {\n",
			new:   "	if h.endLost && h.seq == 0 {\n",
			tests: []string{"keeper.TestWhatBecameOfAMemory"},
		},
		{
			name: "the-bytes-of-lost-contents-are-not-looked-for", promise: 4, file: "keeper/salvage.go",
			old:   "	if s.Content != nil {\n",
			new:   "	if s.Content != nil && s.Restored {\n",
			tests: []string{"cmd/sluice.TestWhatIsLeftOfTheMetadata"},
		},
		{
			name: "found-bytes-are-any", promise: 4, file: "keeper/salvage_contents.go",
			old:   "return err == nil && o.key.SHA256 == sum && o.bytes == w.bytes\n",
			new:   "return err == nil && o.bytes == w.bytes\n",
			tests: []string{"keeper.TestContentIsFoundByItsBytes"},
		},
		{
			name: "a-table-that-cannot-be-read-now-is-lost", promise: 6, file: "store/pebblemeta/holes.go",
			old:   "		if errors.Is(err, no) {\n			return true\n		}\n",
			new:   "		if errors.Is(err, no) && err == nil {\n			return true\n		}\n",
			tests: []string{"store/pebblemeta.TestATableThatCannotBeReadNow"},
		},
		{
			name: "a-row-under-anothers-key-is-not-told-of", promise: 13, file: "keeper/check_rows.go",
			old:   "		if bytes.Compare(before, k) >= 0 || errors.Is(err, catalog.ErrNotFound) {\n",
			new:   "		if false && (bytes.Compare(before, k) >= 0 || errors.Is(err, catalog.ErrNotFound)) {\n",
			tests: []string{"keeper.TestAContentUnderAnothersKey"},
		},
		{
			name: "a-memory-without-a-name-is-left-out", promise: 4, file: "keeper/salvage_unnamed.go",
			old:   "			if !missing[id] {\n",
			new:   "			if missing[id] {\n",
			tests: []string{"keeper.TestWhatBecameOfAMemory"},
		},
		{
			name: "a-memory-without-content-is-back", promise: 3, file: "keeper/salvage_memories.go",
			old:   "	if !found && !known {\n",
			new:   "	if !found && !known && m.Bytes < 0 {\n",
			tests: []string{"keeper.TestWhatBecameOfAMemory"},
		},
		{
			name: "the-trash-is-emptied-by-an-older-row", promise: 3, file: "keeper/salvage_memories.go",
			old:   "			m.PurgeAt = s.now.Running + trashAnew.Milliseconds()\n			fallthrough\n",
			new:   "			fallthrough\n",
			tests: []string{"keeper.TestTheTrashBeginsAnew"},
		},
		{
			name: "the-content-of-lost-rows-is-garbage", promise: 7, file: "keeper/check_expected.go",
			old:   "	case want < p.Refs && !exp.check.cfg.KnownPlace(p.Name):\n",
			new:   "	case false && !exp.check.cfg.KnownPlace(p.Name):\n",
			tests: []string{"keeper.TestContentOfLostRecordsIsKept"},
		},
		{
			name: "the-content-of-lost-rows-is-swept", promise: 7, file: "store/folder/replace.go",
			old:   "Unknown: [][2]uint64{{0, incarnation}}}",
			new:   "Unknown: [][2]uint64{{incarnation + 1, incarnation + 1}}}",
			tests: []string{"store/folder.TestAReplacementThatIsStoppedAnywhere"},
		},
		{
			name: "metadata-are-renamed-before-it-is-decided", promise: 2, file: "store/folder/replace.go",
			old:   "	if err := writeMark(f.FS, f.markPath(), root); err != nil {\n		return \"\", err\n	}\n",
			new:   "",
			tests: []string{"store/folder.TestAReplacementThatIsStoppedAnywhere"},
		},
		{
			name: "a-stopped-replacement-is-not-gone-on-with", promise: 2, file: "store/folder/replace.go",
			old:   "	if err != nil || root.State != replacing {\n		return withRemedy(err, wholeRemedy)\n	}\n",
			new:   "	if err != nil || root.State != replacing || root.Folder != \"\" {\n		return withRemedy(err, wholeRemedy)\n	}\n",
			tests: []string{"store/folder.TestAReplacementThatIsStoppedAnywhere"},
		},
		{
			name: "what-is-left-replaces-a-whole-backup", promise: 10, file: "backup/run.go",
			old:   "	case r.hasManifest:\n",
			new:   "	case r.hasManifest && r.next.Number == 0:\n",
			tests: []string{"backup.TestWhatIsLeftIsNoWholeBackup"},
		},
		{
			name: "a-backup-does-not-say-that-it-is-not-whole", promise: 10, file: "backup/manifest.go",
			old:   "	if len(m.Missing) > 0 {\n		return incompleteName\n	}\n",
			new:   "",
			tests: []string{"backup.TestWhatIsLeftIsNoWholeBackup"},
		},
		{
			name: "a-backup-leaves-out-rot-in-silence", promise: 10, file: "backup/run.go",
			old:   "	case !r.src.Salvage:\n",
			new:   "	case false:\n",
			tests: []string{"backup.TestWhatIsLeftIsNoWholeBackup"},
		},
	}
}
