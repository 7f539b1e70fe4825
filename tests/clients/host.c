/* The host of a program that was linked from an object file: what it imports, passed on to the functions that the
 * test program writes into `host`, in the order of `Host::symbols`. */

struct {
    long (*print_int)(long);
    long (*print_float)(double);
    long (*print_text)(const void *);
    void *(*allocate)(long);
    long (*repeat)(const void *, long);
} host;

long tally = 0;

long print_int(long value) { return host.print_int(value); }
long print_float(double value) { return host.print_float(value); }
long print_text(const void *text) { return host.print_text(text); }
void *allocate(long size) { return host.allocate(size); }
long repeat(const void *closure, long count) { return host.repeat(closure, count); }
