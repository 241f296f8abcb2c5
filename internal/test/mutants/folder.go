package main

// ofFolder breaks what keeps a data folder's halves together, and what is used that which was
// opened.
func ofFolder() []mutant {
	return []mutant{
		{
			name: "an-empty-half-is-made-anew", promise: 7, file: "store/folder/identify.go",
			old: "	case named && root.State == \"\":\n",
			new: "	case named && root.State == \"\" && (meta.empty || content.empty):\n		return f.create(meta, content)\n	case named && root.State == \"\":\n",
			tests: []string{
				"store/folder.TestAHalfThatIsAwayIsNeverMadeAnew", "internal/test/crashtest.TestACrashAtEveryStep", "cmd/sluice.TestAHalfIsAMountOfItsOwn",
			},
		},
		{
			name: "a-half-of-another-folder-is-taken", promise: 7, file: "store/folder/identify.go",
			old:   "	case s.marked && s.mark.Folder == f.id && s.mark.Part == h.part:",
			new:   "	case s.marked && s.mark.Part == h.part:",
			tests: []string{"store/folder.TestHalvesThatDoNotBelongTogether", "store/folder.TestHalvesAreJoined"},
		},
		{
			name: "exchanged-halves-are-taken", promise: 7, file: "store/folder/identify.go",
			old:   "	case s.marked && s.mark.Folder == f.id && s.mark.Part == h.part:",
			new:   "	case s.marked && s.mark.Folder == f.id:",
			tests: []string{"store/folder.TestHalvesThatDoNotBelongTogether", "internal/test/crashtest.TestACrashAtEveryStep"},
		},
		{
			name: "a-folder-is-new-before-its-halves-are", promise: 1, file: "store/folder/identify.go",
			old:   "	if err := f.writeMark(isNew); err != nil {",
			new:   "	if err := f.writeMark(\"\"); err != nil {",
			tests: []string{"store/folder.TestAStartThatIsStoppedAnywhereGoesOn", "internal/test/crashtest.TestACrashAtEveryStep"},
		},
		{
			name: "a-life-counts-before-it-has-begun", promise: 1, file: "store/folder/incarnation.go",
			old:   "m.Next, m.Open = f.id, f.Meta.part, last.Incarnation, after+1, false",
			new:   "m.Next, m.Open = f.id, f.Meta.part, after+1, after+1, false",
			tests: []string{"store/folder.TestAStartThatIsStoppedAnywhereGoesOn", "internal/test/crashtest.TestACrashAtEveryStep"},
		},
		{
			name: "an-older-content-is-taken", promise: 7, file: "store/folder/incarnation.go",
			old:   "	if f.rejoin || last.Incarnation >= f.meta.Incarnation {",
			new:   "	if f.rejoin || last.Incarnation >= f.meta.Incarnation || f.Used() {",
			tests: []string{"store/folder.TestHalvesThatDoNotBelongTogether"},
		},
		{
			name: "what-an-older-metadata-can-not-know-is-forgotten", promise: 7, file: "store/folder/incarnation.go",
			old:   "		m.Unknown = append(slices.Clone(m.Unknown), [2]uint64{from, last.Incarnation})\n",
			new:   "",
			tests: []string{"store/folder.TestLivesThatTheMetadataDoesNotKnow"},
		},
		{
			name: "a-life-is-lived-twice", promise: 4, file: "store/localblob/state.go",
			old:   "Incarnation: max(old.Incarnation, s.opts.AfterIncarnation) + 1,",
			new:   "Incarnation: old.Incarnation + 1,",
			tests: []string{"store/localblob.TestAnOlderFolderLivesOn"},
		},
		{
			name: "what-no-record-can-name-is-swept", promise: 7, file: "keeper/sweep.go",
			old:   "	if !s.k.cfg.KnownIncarnation(p.Incarnation) {\n		if orphan {",
			new:   "	if !s.k.cfg.KnownIncarnation(p.Incarnation) && p.Name == \"\" {\n		if orphan {",
			tests: []string{"keeper.TestWhatTheMetadataCanNotKnowStays"},
		},
		{
			name: "a-deletion-does-not-look-where-it-is", promise: 7, file: "keeper/keeper.go",
			old:   "func (k *Keeper) delete(ctx context.Context, place string) error {\n	if err := k.cfg.InPlace(); err != nil {",
			new:   "func (k *Keeper) delete(ctx context.Context, place string) error {\n	if err := k.cfg.InPlace(); err != nil && place == \"\" {",
			tests: []string{"keeper.TestAFolderThatGoesAwayEndsAPass"},
		},
		{
			name: "the-scrub-marks-what-is-away", promise: 7, file: "keeper/scrub.go",
			old:   "	if err := k.cfg.InPlace(); err != nil {\n		return err\n	}\n	if e.Place",
			new:   "	if e.Place",
			tests: []string{"keeper.TestScrubMarksNothingOfAFolderThatIsAway"},
		},
		{
			name: "the-scrub-goes-on-without-its-disk", promise: 7, file: "keeper/scrub.go",
			old:   "		if errors.Is(err, blob.ErrUnavailable) { // no other content can be read either",
			new:   "		if errors.Is(err, blob.ErrUnavailable) && e.Len < 0 {",
			tests: []string{"keeper.TestScrubMarksNothingOfAFolderThatIsAway"},
		},
		{
			name: "a-folder-that-is-gone-is-the-loss-of-each-place", promise: 7, file: "store/localblob/file.go",
			old:   "		if gone := f.s.checkFolder(f.p.folderOf()); gone != nil {",
			new:   "		if gone := f.s.checkFolder(f.p.folderOf()); gone != nil && f.deleted.Load() {",
			tests: []string{"store/localblob.TestAFolderThatIsGoneIsNoLossOfPlaces"},
		},
		{
			name: "a-dead-disk-is-the-rot-of-each-place", promise: 7, file: "store/localblob/gone.go",
			old:   "	if gone := s.checkFolder(p.folderOf()); gone != nil {",
			new:   "	if gone := s.checkFolder(p.folderOf()); gone != nil && p.incarnation == 0 {",
			tests: []string{"store/localblob.TestAFolderThatIsGoneIsNoLossOfPlaces"},
		},
		{
			name: "a-backup-takes-content-that-is-away-for-damaged", promise: 10, file: "backup/copy.go",
			old:   "	if errors.Is(source, blob.ErrUnavailable) {",
			new:   "	if errors.Is(source, blob.ErrNoSpace) {",
			tests: []string{"backup.TestABackupOfContentThatIsAwayFails"},
		},
		{
			name: "content-goes-by-its-name", promise: 7, file: "internal/durable/held.go",
			old:   "func(fd uintptr) { err = do(int(fd), rel) }",
			new:   "func(fd uintptr) { err = do(unix.AT_FDCWD, path) }",
			tests: []string{"internal/durable.TestAHeldFolderIsTheOneThatWasOpened", "cmd/sluice.TestARenamedFolderIsNotAnothers"},
		},
		{
			name: "metadata-goes-by-its-name", promise: 7, file: "store/pebblemeta/held.go",
			old:   "	return h.way + rest, nil",
			new:   "	return h.name + rest, nil",
			tests: []string{"store/pebblemeta.TestAHeldFolderIsTheOneThatWasOpened"},
		},
		{
			name: "the-socket-goes-by-its-name", promise: 12, file: "cmd/sluice/control.go",
			old:   "	return c.folder.FS.Remove(filepath.Join(c.folder.Path, socketName))",
			new:   "	return os.Remove(filepath.Join(c.folder.Path, socketName))",
			tests: []string{"cmd/sluice.TestARenamedFolderIsNotAnothers"},
		},
		{
			name: "a-folder-that-was-moved-is-not-noticed", promise: 7, file: "store/folder/watch.go",
			old:   "		if err := h.InPlace(); err != nil {",
			new:   "		if err := h.InPlace(); err != nil && f.lock == nil {",
			tests: []string{"store/folder.TestAFolderThatMovesIsNoticed", "store/folder.TestAFolderIsWatchedAndLocked", "cmd/sluice.TestNothingIsTakenWhileAHalfIsAway"},
		},
		{
			name: "one-failing-read-is-a-folder-that-is-away", promise: 6, file: "store/folder/watch.go",
			old:   "	if err != nil && was == nil && f.inPlace() == nil {",
			new:   "	if false {",
			tests: []string{"store/folder.TestOneFailingStepOfALookIsPutUpWith", "internal/test/crashtest.TestAFailureOfEveryStep"},
		},
		{
			name: "changes-are-taken-while-the-folder-is-away", promise: 7, file: "store/pebblemeta/pebblemeta.go",
			old:   "	if err := db.allow(); err != nil {",
			new:   "	if err := db.allow(); err != nil && db == nil {",
			tests: []string{"cmd/sluice.TestNothingIsTakenWhileAHalfIsAway"},
		},
		{
			name: "a-database-that-is-gone-is-made-anew", promise: 7, file: "store/pebblemeta/open.go",
			old:   "		if existing {",
			new:   "		if existing && len(names) > 1 {",
			tests: []string{"store/pebblemeta.TestADatabaseThatIsGoneIsNotMadeAnew"},
		},
		{
			name: "lock-files-alone-keep-others-out", promise: 12, file: "store/folder/folder.go",
			old: "	switch err := held.Lock(); {",
			new: "	switch err := error(nil); {",
			tests: []string{
				"store/folder.TestAFolderIsLockedWithoutItsLockFiles", "store/folder.TestAHalfIsLockedForAllWhoHaveIt", "cmd/sluice.TestASecondServerIsRefusedWithoutLockFiles",
			},
		},
		{
			name: "another-server-on-the-folder-is-not-noticed", promise: 12, file: "store/folder/watch.go",
			old:   "	if m.Incarnation != f.meta.Incarnation || m.Next",
			new:   "	if m.Incarnation > f.meta.Incarnation+9 && m.Next",
			tests: []string{"store/folder.TestAnotherServerOnTheFolderIsNoticed", "cmd/sluice.TestAServerWhoseFolderWasTakenWritesNothing"},
		},
		{
			name: "a-lock-that-was-removed-is-not-noticed", promise: 12, file: "store/folder/watch.go",
			old:   "	if err := f.checkLocks(); err != nil || f.extraCheck == nil {",
			new:   "	if err := error(nil); err != nil || f.extraCheck == nil {",
			tests: []string{"store/folder.TestAFolderIsLockedWithoutItsLockFiles", "cmd/sluice.TestASecondServerIsRefusedWithoutLockFiles"},
		},
		{
			name: "a-folder-that-was-taken-is-written-at-the-end", promise: 12, file: "cmd/sluice/data.go",
			old:   "		if err := d.folder.Taken(); err != nil {",
			new:   "		if err := d.folder.Taken(); err != nil && d.meta == nil {",
			tests: []string{"cmd/sluice.TestAServerWhoseFolderWasTakenWritesNothing"},
		},
		{
			name: "missing-places-are-made-anew", promise: 7, file: "store/localblob/parts.go",
			old:   "		if err := was.checkPart(on, filepath.Join(dir, part)); err != nil {",
			new:   "		if err := was.checkPart(on, filepath.Join(dir, part)); err != nil && was.format > 2 {",
			tests: []string{"store/localblob.TestPartsThatAreAwayAreNotMadeAnew", "cmd/sluice.TestAPartIsAMountOfItsOwn"},
		},
		{
			name: "places-of-another-content-are-taken", promise: 7, file: "store/localblob/parts.go",
			old:   "	case owner != f.owner:",
			new:   "	case owner == f.owner+f.owner:",
			tests: []string{"store/localblob.TestPartsThatAreAwayAreNotMadeAnew"},
		},
		{
			name: "a-part-that-goes-away-is-not-noticed", promise: 7, file: "store/localblob/parts.go",
			old:   "		if info.ID != s.parts[i] {",
			new:   "		if !info.Dir {",
			tests: []string{"store/localblob.TestPartsThatGoAwayAreNoticed", "cmd/sluice.TestAPartIsAMountOfItsOwn"},
		},
		{
			name: "the-parts-are-not-looked-at", promise: 7, file: "cmd/sluice/data.go",
			old:   "	d.folder.AddCheck(d.blobs.InPlace)\n",
			new:   "",
			tests: []string{"cmd/sluice.TestAPartIsAMountOfItsOwn"},
		},
		{
			name: "metadata-is-opened-before-the-content-is-looked-at", promise: 7, file: "cmd/sluice/data.go",
			old:   "	last, err := suits(d.folder, of.Rejoin)\n	if err != nil {",
			new:   "	last, err := suits(d.folder, of.Rejoin)\n	if m, _ := pebblemeta.Open(meta.Path, pebblemeta.Options{Hook: mo.Hook}); m != nil && !d.frozen {\n		_ = m.Close()\n	}\n	if err != nil {",
			tests: []string{"cmd/sluice.TestWhatIsRefusedIsNotTouched", "cmd/sluice.TestAPartIsAMountOfItsOwn"},
		},
		{
			name: "the-folder-comes-before-the-ports", promise: 12, file: "cmd/sluice/serve.go",
			old:   "	public, admin, err := c.listen()\n",
			new:   "	_ = os.Mkdir(c.Data, 0o700)\n	public, admin, err := c.listen()\n",
			tests: []string{"cmd/sluice.TestATakenPortLeavesNothingBehind"},
		},
		{
			name: "all-of-the-path-is-made", promise: 7, file: "internal/durable/durable.go",
			old:   "	if _, err := on.Stat(parent); errors.Is(err, fs.ErrNotExist) {\n		return fmt",
			new:   "	if _, err := on.Stat(parent); errors.Is(err, fs.ErrExist) {\n		return fmt",
			tests: []string{"store/folder.TestHalvesThatDoNotBelongTogether"},
		},
		{
			name: "an-empty-variable-is-a-value", promise: 17, file: "cmd/sluice/empty.go",
			old:   "bool { return os.Getenv(name) == \"\" }",
			new:   "bool { return name == \"\" && os.Getenv(name) == \"\" }",
			tests: []string{"cmd/sluice.TestAnEmptyVariableIsNotSet"},
		},
		{
			name: "an-empty-filter-lists-everything", promise: 17, file: "cmd/sluice/empty.go",
			old:   "if v == nil || v.Tag.Has(\"empty\") ||",
			new:   "if v == nil || v.Tag.Has(\"empty\") || v.Name == \"sha256\" ||",
			tests: []string{"cmd/sluice.TestAnEmptyArgumentIsNoValue"},
		},
		{
			name: "a-state-that-was-read-is-taken-for-durable", promise: 2, file: "store/folder/incarnation.go",
			old: "	if err := durable.SyncDir(f.Content.FS, f.Content.Path); err != nil {",
			new: "	if err := durable.SyncDir(f.Content.FS, f.Path+\"/meta\"); err != nil {",
			tests: []string{
				"internal/test/crashtest.TestAStartAfterAKilledStart",
				"store/folder.TestAStartThatIsStoppedAnywhereGoesOn",
			},
		},
		{
			name: "the-mark-of-a-half-that-was-read-is-taken-for-durable", promise: 2, file: "store/folder/identify.go",
			old: "			err = durable.SyncDir(of.h.FS, of.h.Path) // the mark that was read may not be on the disk\n",
			new: "			err = nil\n",
			tests: []string{
				"internal/test/crashtest.TestAStartAfterAKilledStart",
				"store/folder.TestAStartThatIsStoppedAnywhereGoesOn",
			},
		},
		{
			name: "steps-of-a-replacement-are-taken-for-durable", promise: 2, file: "store/folder/replace.go",
			old:   "	if err := durable.SyncDir(f.FS, f.Path); err != nil {\n		return err\n	}\n	if err := f.replace(root); err != nil {",
			new:   "	if err := f.replace(root); err != nil {",
			tests: []string{"store/folder.TestAReplacementThatIsStoppedAnywhere"},
		},
	}
}
