// Loads an image, stops so that a debugger can look, and makes the calls of a script.
//
// The script begins with the number of slots; for each follows the size of its object, and the bytes
// in hex. Every line then is: thunk, the function's name in hex, the cells in hex.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned char cell[16];

#ifdef __x86_64__
// A routine that Cranelift's code calls and no library has.
typedef unsigned char lanes __attribute__((vector_size(16)));
lanes __cranelift_x86_pshufb(lanes values, lanes which) {
    lanes result = {0};
    for (int i = 0; i < 16; i++) result[i] = which[i] & 0x80 ? 0 : values[which[i] & 15];
    return result;
}
#endif

static void read_hex(FILE *script, unsigned char *bytes, int count) {
    for (int i = 0; i < count; i++)
        if (fscanf(script, "%2hhx", &bytes[i]) != 1) exit(3);
}

int main(int argc, char **argv) {
    void *image = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!image) {
        puts(argc == 3 ? dlerror() : "usage: host IMAGE SCRIPT");
        return 2;
    }
    FILE *script = fopen(argv[2], "r");
    int slot_count;
    if (!script || fscanf(script, "%d", &slot_count) != 1) return 3;
    void **slots = dlsym(image, "kiln_slots");
    for (int i = 0; i < slot_count; i++) {
        int size;
        if (fscanf(script, "%d ", &size) != 1) return 3;
        slots[i] = aligned_alloc(16, (size + 31) & ~15);
        read_hex(script, slots[i], size);
    }
    char thunk_name[64], name[256], digits[513];
    Dl_info info;
    int announced = 0;
    while (fscanf(script, "%60s %510s ", thunk_name, digits) == 2) {
        int length = 0;
        while (sscanf(digits + 2 * length, "%2hhx", (unsigned char *)&name[length]) == 1) length++;
        name[length] = 0;
        cell cells[32];
        read_hex(script, cells[0], sizeof cells);
        void (*thunk)(void *, cell *) = (void (*)(void *, cell *))dlsym(image, thunk_name);
        void *function = dlsym(image, name);
        if (!thunk || !function || !dladdr(function, &info)) {
            printf("the image has no %s or no %s\n", thunk_name, name);
            return 2;
        }
        if (!announced++) {
            printf("%lx\n", (unsigned long)info.dli_fbase);
            fflush(stdout);
            raise(SIGTRAP);
        }
        thunk(function, cells);
    }
    return feof(script) ? 0 : 3;
}
