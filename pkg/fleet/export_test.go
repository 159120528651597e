package fleet

// Look does what Run does each second.
func (f *Fleet) Look() { f.look() }
