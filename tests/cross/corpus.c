// Loads an image and makes the calls of a script, through the entry thunks in the image. The image `-` is this program
// itself, which objects were linked into.
//
// The script begins with the number of slots, each of which gets 4096 zeroed bytes of its own. Every line then is:
// line, thunk, function, `eq` or `ne`, number of arguments, their bytes in hex, number of results, theirs.
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// Reads values and their lengths into cells.
static int read_values(FILE *script, cell *cells, int *lengths) {
    int count;
    char text[64];
    if (fscanf(script, "%d", &count) != 1 || count > 32) exit(3);
    for (int i = 0; i < count; i++) {
        if (fscanf(script, "%60s", text) != 1) exit(3);
        lengths[i] = strlen(text) / 2;
        for (int at = 0; at < lengths[i]; at++) sscanf(text + 2 * at, "%2hhx", &cells[i][at]);
    }
    return count;
}

int main(int argc, char **argv) {
    void *image = argc == 3 ? dlopen(strcmp(argv[1], "-") ? argv[1] : NULL, RTLD_NOW) : NULL;
    if (!image) {
        puts(argc == 3 ? dlerror() : "usage: corpus IMAGE SCRIPT");
        return 2;
    }
    FILE *script = fopen(argv[2], "r");
    int slot_count;
    if (!script || fscanf(script, "%d", &slot_count) != 1) return 3;
    void **slots = dlsym(image, "kiln_slots");
    // Objects whose globals are symbols have no slots.
    for (int i = 0; slots && i < slot_count; i++) slots[i] = calloc(1, 4096);

    int failures = 0, line;
    char thunk_name[64], name[256], relation[3];
    while (fscanf(script, "%d %60s %250s %2s", &line, thunk_name, name, relation) == 4) {
        cell cells[32] = {0}, expected[32] = {0};
        int lengths[32];
        read_values(script, cells, lengths);
        int count = read_values(script, expected, lengths);
        void (*thunk)(void *, cell *) = (void (*)(void *, cell *))dlsym(image, thunk_name);
        void *function = dlsym(image, name);
        if (!thunk || !function) {
            printf("the image has no %s or no %s\n", thunk_name, name);
            return 2;
        }
        thunk(function, cells);
        int equal = 1;
        for (int i = 0; i < count; i++) equal &= !memcmp(cells[i], expected[i], lengths[i]);
        if (equal == !strcmp(relation, "eq")) continue;
        failures++;
        printf("line %d: %s returned", line, name);
        for (int i = 0; i < count; i++) {
            putchar(' ');
            for (int at = 0; at < lengths[i]; at++) printf("%02x", cells[i][at]);
        }
        putchar('\n');
    }
    if (!feof(script)) return 3;
    return failures != 0;
}
